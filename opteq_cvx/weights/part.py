"""Part: one piece of a parametrization, a smooth map from free numbers onto a set of tensors."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from opteq_cvx.ir.frozen import Shape


class Part(nn.Module, ABC):
    """A map free tensor ↦ element of a set, with a right inverse and the projection onto the set's closure.

    `forward` keeps the dtype of its input. The other three take and return float64: they run when a value is
    assigned or read, never in training. Buffers (bounds, indices) are not part of the `state_dict`, and keep
    float64 through `.to(dtype)`, so that no bound is lost by a detour through float32.
    """

    @abstractmethod
    @override
    def forward(self, raw: Tensor) -> Tensor:
        """The element that the free tensor `raw` stands for."""

    @abstractmethod
    def right_inverse(self, value: Tensor) -> Tensor:
        """A free tensor that `forward` sends to `value`, for a `value` that `inside` returned."""

    @abstractmethod
    def project(self, value: Tensor) -> Tensor:
        """A nearest (or near) point of the closed set; `value` itself where it already lies in it."""

    def raw_shape(self, shape: Shape) -> Shape:
        """The shape of the free tensor behind a weight of this shape."""
        return shape

    def inside(self, value: Tensor) -> Tensor:
        """A point of the image of `forward` next to `value`, which lies in the closed set."""
        return value

    def polish(self, value: Tensor) -> Tensor:
        """Remove what rounding left of a value that `forward` computed in float64."""
        return value

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]
        return self


def constant(value: Tensor, like: Tensor) -> Tensor:
    """A float64 buffer in the dtype of `like`."""
    return value.to(like.dtype)


def symmetrized(value: Tensor) -> Tensor:
    """½(A + Aᵀ) over the last two axes; exactly symmetric in floating point."""
    return 0.5 * (value + value.mT)


def margin(dtype: torch.dtype, rank: int) -> float:
    """How far (relatively) below its bound a norm is kept, so that rounding to `dtype` cannot pass it.

    Rounding moves W by at most u‖|W|‖₂ ≤ u√min(m, n)·‖W‖₂ with u the unit roundoff; never less than 1e-6.
    """
    roundoff = torch.finfo(dtype).eps / 2
    return max(1e-6, 1.01 * roundoff * math.sqrt(rank))
