"""Whether the values of a tensor may be looked at: not inside a trace or a transform, and not where it costs a wait."""

import math

import torch
from torch import Tensor
from torch.autograd import forward_ad


def hidden(t: Tensor) -> bool:
    """Whether the values of `t` cannot be looked at: inside a function transform or a trace."""
    return torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(t)


def transformed() -> bool:
    """Whether forward mode or a function transform is active, even if not for a tensor at hand."""
    return forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None


def known_finite(t: Tensor) -> bool:
    """Whether all of `t` is finite, where that is seen by one sum: a quarter of the time of `isfinite`. A False says
    nothing: the sum of finite numbers may overflow."""
    return t.device.type == "cpu" and not hidden(t) and math.isfinite(t.detach().sum())


def known_true(flags: Tensor) -> bool:
    """Whether all flags are True, where that can be read without a wait or a break of a transform; else False."""
    return flags.device.type == "cpu" and not hidden(flags) and bool(flags.all())
