"""Affine expressions of the variables, Σ_v K_v v + b, on a batch, and the adjoint of their linear part."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from opteq_cvx.ir.param import is_zero
from opteq_cvx.ir.program import Affine
from opteq_cvx.maps.base import Lookup, Operator
from opteq_cvx.maps.bind import bind


@dataclass(frozen=True, eq=False)
class BoundAffine:
    """An Affine with its coefficients bound: an operator per variable, the offset (1|B, *shape) or None."""

    parts: tuple[tuple[str, Operator], ...]
    offset: Tensor | None

    def __call__(self, variables: Mapping[str, Tensor]) -> Tensor:
        """Σ_v K_v v + b, (B, *shape)."""
        terms = [operator.apply(variables[name]) for name, operator in self.parts]
        return reduce(torch.add, terms if self.offset is None else [*terms, self.offset])

    def adjoint(self, y: Tensor) -> dict[str, Tensor]:
        """K_vᵀ y for each variable v, (B, *shape_v)."""
        return {name: operator.adjoint(y) for name, operator in self.parts}


def bind_affine(aff: Affine, lookup: Lookup) -> BoundAffine:
    """Bind an Affine's coefficients and offset, once for many evaluations."""
    offset = None if aff.parts and is_zero(aff.offset) else lookup(aff.offset)
    return BoundAffine(tuple((name, bind(m, lookup)) for name, m in aff.parts), offset)


def affine(aff: Affine, variables: Mapping[str, Tensor], lookup: Lookup) -> Tensor:
    """Evaluate `aff` at variables (1|B, *shape_v), giving (1|B, *shape)."""
    return bind_affine(aff, lookup)(variables)


def affine_adjoint(aff: Affine, y: Tensor, lookup: Lookup) -> dict[str, Tensor]:
    """The adjoint of the linear part of `aff` at y (B, *shape), by variable."""
    return {name: bind(m, lookup).adjoint(y) for name, m in aff.parts}
