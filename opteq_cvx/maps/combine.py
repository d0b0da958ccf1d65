"""Operators made of operators: composition, sum, adjoint, and an operator seen through other shapes."""

from dataclasses import dataclass
from functools import reduce

from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Shape, size
from opteq_cvx.maps.base import Operator


@dataclass(frozen=True, eq=False)
class Chain(Operator):
    """parts[0] ∘ parts[1] ∘ … (the last one acts first)."""

    parts: tuple[Operator, ...]

    @override
    def apply(self, x: Tensor) -> Tensor:
        return reduce(lambda value, part: part.apply(value), reversed(self.parts), x)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        return reduce(lambda value, part: part.adjoint(value), self.parts, y)

    @override
    def lift(self, columns: int) -> Operator:
        return chain(*(part.lift(columns) for part in self.parts))


def chain(*parts: Operator) -> Operator:
    """The composition of operators whose shapes fit."""
    return parts[0] if len(parts) == 1 else Chain(parts[-1].shape_in, parts[0].shape_out, parts)


@dataclass(frozen=True, eq=False)
class Total(Operator):
    """Σᵢ parts[i]."""

    parts: tuple[Operator, ...]

    @override
    def apply(self, x: Tensor) -> Tensor:
        return reduce(lambda a, b: a + b, (part.apply(x) for part in self.parts))

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        return reduce(lambda a, b: a + b, (part.adjoint(y) for part in self.parts))

    @override
    def lift(self, columns: int) -> Operator:
        lifted = tuple(part.lift(columns) for part in self.parts)
        return Total((*self.shape_in, columns), (*self.shape_out, columns), lifted)


@dataclass(frozen=True, eq=False)
class Transposed(Operator):
    """The adjoint of an operator."""

    of: Operator

    @override
    def apply(self, x: Tensor) -> Tensor:
        return self.of.adjoint(x)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        return self.of.apply(y)

    @override
    def lift(self, columns: int) -> Operator:
        return transposed(self.of.lift(columns))


def transposed(operator: Operator) -> Operator:
    """The adjoint, with a double one removed."""
    if isinstance(operator, Transposed):
        return operator.of
    return Transposed(operator.shape_out, operator.shape_in, operator)


@dataclass(frozen=True, eq=False)
class Regrouped(Operator):
    """`inner` between the same entries in C order, grouped into other shapes."""

    inner: Operator

    @override
    def apply(self, x: Tensor) -> Tensor:
        return regroup(self.inner.apply(regroup(x, self.inner.shape_in)), self.shape_out)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        return regroup(self.inner.adjoint(regroup(y, self.inner.shape_out)), self.shape_in)

    @override
    def lift(self, columns: int) -> Operator:
        return Regrouped((*self.shape_in, columns), (*self.shape_out, columns), self.inner.lift(columns))


def regroup(x: Tensor, shape: Shape) -> Tensor:
    """(B, *any) → (B, *shape) in C order."""
    return x.reshape(x.shape[0], *shape)


def flat(x: Tensor) -> Tensor:
    """(B, *any) → (B, n) in C order; a scalar event becomes a vector of one entry."""
    return x.reshape(x.shape[0], size(tuple(x.shape[1:])))
