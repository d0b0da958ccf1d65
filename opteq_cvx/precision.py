"""Products in full float32 on CUDA devices while an equilibrium or its adjoint is solved.

torch lets cuDNN round the inputs of convolutions to TF32 (10 bits of mantissa) unless told otherwise. A residual cannot
fall below that rounding, so that a solve to 1e-4 would not end, and gradients would be good to three digits. The flags
are those of the process: they are changed for the time of the solve, by the first thread in, and put back by the last.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

LOOSE = 1e-2
"""From this tolerance on TF32 is good enough, and what the user has set stays."""


def full_precision(like: Tensor, tolerance: float) -> AbstractContextManager[None]:
    """A context in which float32 products on the device of `like` are exact to float32; nothing elsewhere."""
    return _HELD() if needed(like.device, like.dtype, tolerance) else nullcontext()


def needed(device: torch.device, dtype: torch.dtype, tolerance: float) -> bool:
    """Whether TF32 would be seen."""
    return device.type == "cuda" and dtype == torch.float32 and tolerance < LOOSE


class _Flags:
    """The process's flags, held while any thread is inside."""

    def __init__(self) -> None:
        self.lock, self.depth = threading.Lock(), 0
        self.back: Callable[[], None] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if self.depth == 0:
                self.back = _changed()
            self.depth += 1
        try:
            yield
        finally:
            with self.lock:
                self.depth -= 1
                if self.depth == 0 and self.back is not None:
                    self.back()


_HELD = _Flags()


def _changed() -> Callable[[], None]:
    """Turn TF32 off; what puts the flags back. By the API that the user's flags allow: torch refuses a mix of both."""
    convolutions: Any = torch.backends.cudnn
    products: Any = torch.backends.cuda.matmul
    try:
        old = convolutions.allow_tf32, products.allow_tf32
    except RuntimeError:
        return _changed_by_name()

    def back() -> None:
        convolutions.allow_tf32, products.allow_tf32 = old

    convolutions.allow_tf32 = products.allow_tf32 = False
    return back


def _changed_by_name() -> Callable[[], None]:
    backends: Any = torch.backends
    kinds = [backends.cudnn.conv, backends.cuda.matmul]
    old = [kind.fp32_precision for kind in kinds]
    for kind in kinds:
        kind.fp32_precision = "ieee"

    def back() -> None:
        for kind, value in zip(kinds, old, strict=True):
            kind.fp32_precision = value

    return back
