"""The identity, zero and diagonal operators."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from opteq_cvx.maps.base import Operator, align


@dataclass(frozen=True, eq=False)
class IdentityOperator(Operator):
    """x ↦ x, the same tensor."""

    @override
    def apply(self, x: Tensor) -> Tensor:
        return x

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        return y

    @override
    def lift(self, columns: int) -> Operator:
        return IdentityOperator((*self.shape_in, columns), (*self.shape_out, columns))


@dataclass(frozen=True, eq=False)
class ZeroOperator(Operator):
    """x ↦ 0."""

    @override
    def apply(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], *self.shape_out)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        return y.new_zeros(y.shape[0], *self.shape_in)

    @override
    def lift(self, columns: int) -> Operator:
        return ZeroOperator((*self.shape_in, columns), (*self.shape_out, columns))


@dataclass(frozen=True, eq=False)
class DiagonalOperator(Operator):
    """x ↦ d ∘ x with d (1|B, *s), s broadcasting to the shape."""

    d: Tensor

    @override
    def apply(self, x: Tensor) -> Tensor:
        return align(self.d, len(self.shape_in)) * x

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        return self.apply(y)

    @override
    def lift(self, columns: int) -> Operator:
        return DiagonalOperator((*self.shape_in, columns), (*self.shape_out, columns), self.d.unsqueeze(-1))
