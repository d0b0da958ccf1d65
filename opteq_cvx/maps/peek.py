"""Whether the values of a tensor may be looked at: not inside a trace or a transform, and not where it costs a wait."""

import torch
from torch import Tensor


def hidden(t: Tensor) -> bool:
    """Whether the values of `t` cannot be looked at: inside a function transform or a trace."""
    return torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(t)


def known_true(flags: Tensor) -> bool:
    """Whether all flags are True, where that can be read without a wait or a break of a transform; else False."""
    return flags.device.type == "cpu" and not hidden(flags) and bool(flags.all())
