"""Operators that rearrange, sum and repeat entries without coefficients."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Shape
from opteq_cvx.maps.base import Operator, align
from opteq_cvx.maps.combine import chain, regroup


@dataclass(frozen=True, eq=False)
class ReshapeOperator(Operator):
    """Reshape in C order."""

    @override
    def apply(self, x: Tensor) -> Tensor:
        return regroup(x, self.shape_out)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        return regroup(y, self.shape_in)

    @override
    def lift(self, columns: int) -> Operator:
        return ReshapeOperator((*self.shape_in, columns), (*self.shape_out, columns))


@dataclass(frozen=True, eq=False)
class PermuteOperator(Operator):
    """numpy.transpose(x, axes)."""

    axes: tuple[int, ...]

    @override
    def apply(self, x: Tensor) -> Tensor:
        return x.permute(0, *(a + 1 for a in self.axes))

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        return y.permute(0, *(self.axes.index(i) + 1 for i in range(len(self.axes))))

    @override
    def lift(self, columns: int) -> Operator:
        axes = (*self.axes, len(self.axes))
        return PermuteOperator((*self.shape_in, columns), (*self.shape_out, columns), axes)


@dataclass(frozen=True, eq=False)
class SumOperator(Operator):
    """Sum over `axes`, dropped or kept with length 1."""

    axes: tuple[int, ...]

    @override
    def apply(self, x: Tensor) -> Tensor:
        if not self.axes:
            return x
        return regroup(x.sum(dim=tuple(a + 1 for a in self.axes)), self.shape_out)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        kept = tuple(1 if i in self.axes else n for i, n in enumerate(self.shape_in))
        return regroup(y, kept).expand(y.shape[0], *self.shape_in)

    @override
    def lift(self, columns: int) -> Operator:
        return SumOperator((*self.shape_in, columns), (*self.shape_out, columns), self.axes)


@dataclass(frozen=True, eq=False)
class BroadcastOperator(Operator):
    """Broadcast by NumPy's rules; the adjoint sums what was repeated."""

    @override
    def apply(self, x: Tensor) -> Tensor:
        return align(x, len(self.shape_out)).expand(x.shape[0], *self.shape_out)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        padded = _padded(self.shape_in, len(self.shape_out))
        axes = tuple(i + 1 for i, (a, b) in enumerate(zip(padded, self.shape_out, strict=True)) if a != b)
        return regroup(y.sum(dim=axes), self.shape_in) if axes else regroup(y, self.shape_in)

    @override
    def lift(self, columns: int) -> Operator:
        padded = (*_padded(self.shape_in, len(self.shape_out)), columns)
        wide = BroadcastOperator(padded, (*self.shape_out, columns))
        return chain(wide, ReshapeOperator((*self.shape_in, columns), padded))


def _padded(shape: Shape, rank: int) -> Shape:
    return (*(1,) * (rank - len(shape)), *shape)


def reshape_operator(shape_in: Shape, shape_out: Shape, order: str) -> Operator:
    """A reshape in C or Fortran order; the latter reverses the axes before and after one in C order."""
    if order == "C":
        return ReshapeOperator(shape_in, shape_out)
    back_in, back_out = shape_in[::-1], shape_out[::-1]
    return chain(
        PermuteOperator(back_out, shape_out, tuple(reversed(range(len(shape_out))))),
        ReshapeOperator(back_in, back_out),
        PermuteOperator(shape_in, back_in, tuple(reversed(range(len(shape_in))))),
    )
