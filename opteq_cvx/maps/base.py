"""Operator: a linear map bound to tensors, acting on a batch; and the alignment rule of every evaluation.

All tensors have exactly one leading batch axis, of length B (per sample) or 1 (shared by the batch).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from opteq_cvx.ir.frozen import Shape
from opteq_cvx.ir.param import ParamExpr, const

Lookup = Callable[[ParamExpr], Tensor]
"""Gives a coefficient its value (1|B, *shape); an `Environment` is one."""

PROBE = const(0.0)
"""A constant that is looked up only to learn the dtype and the device."""


@dataclass(frozen=True, eq=False)
class Operator(ABC):
    """A batched linear map K from shape_in to shape_out, differentiable in argument and coefficients."""

    shape_in: Shape
    shape_out: Shape

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """K x: (B, *shape_in) → (B, *shape_out); coefficients and argument broadcast over the batch."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Kᵀ y: (B, *shape_out) → (B, *shape_in)."""

    @abstractmethod
    def lift(self, columns: int) -> "Operator":
        """K on `columns` arguments side by side: (B, *shape_in, columns) → (B, *shape_out, columns)."""


def align(value: Tensor, rank: int) -> Tensor:
    """Insert singleton axes after the batch axis, up to `rank` event axes: (B, *s) → (B, 1, …, 1, *s)."""
    missing = rank + 1 - value.ndim
    return value.reshape(value.shape[0], *(1,) * missing, *value.shape[1:]) if missing > 0 else value
