"""Affine expressions of the variables, Σ_v K_v v + b, evaluated on a batch, and the adjoint of their linear part."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from opteq_cvx.ir.program import Affine
from opteq_cvx.maps.base import Lookup, Operator
from opteq_cvx.maps.bind import bind


@dataclass(frozen=True, eq=False)
class BoundAffine:
    """An Affine with its coefficients bound: one operator per variable, and the offset (1|B, *shape)."""

    parts: tuple[tuple[str, Operator], ...]
    offset: Tensor

    def __call__(self, variables: Mapping[str, Tensor]) -> Tensor:
        """Σ_v K_v v + b, (B, *shape)."""
        total = self.offset
        for name, operator in self.parts:
            total = operator.apply(variables[name]) + total
        rows = max((variables[name].shape[0] for name, _ in self.parts), default=1)
        return total.expand(max(rows, total.shape[0]), *total.shape[1:])

    def adjoint(self, y: Tensor) -> dict[str, Tensor]:
        """K_vᵀ y for each variable v, (B, *shape_v)."""
        return {name: operator.adjoint(y) for name, operator in self.parts}


def bind_affine(aff: Affine, lookup: Lookup) -> BoundAffine:
    """Bind an Affine's coefficients and offset, once for many evaluations."""
    return BoundAffine(tuple((name, bind(m, lookup)) for name, m in aff.parts), lookup(aff.offset))


def affine(aff: Affine, variables: Mapping[str, Tensor], lookup: Lookup) -> Tensor:
    """Evaluate `aff` at variables (1|B, *shape_v), giving (1|B, *shape)."""
    return bind_affine(aff, lookup)(variables)


def affine_adjoint(aff: Affine, y: Tensor, lookup: Lookup) -> dict[str, Tensor]:
    """The adjoint of the linear part of `aff` at y (B, *shape), by variable."""
    return {name: bind(m, lookup).adjoint(y) for name, m in aff.parts}
