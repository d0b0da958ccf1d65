"""The nonnegative orthant."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.ir.pattern import Op


@dataclass(frozen=True, slots=True)
class Nonneg(Atom):
    """The indicator of {x ≥ 0}; the projection is relu, with derivative 0 at 0."""

    name = "nonneg"
    formula = "ι{x ≥ 0}"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.3.1"
    traits = frozenset({Trait.SEPARABLE, Trait.SET, Trait.CONE, Trait.INTERVAL})
    patterns = (Op("nonneg"),)
    spellings = (
        Spelling(text="x >= 0", constraint=True),
        Spelling(text="", constraint=True, attributes={"x": {"nonneg": True}}),
        Spelling(
            text="A @ x >= b",
            parameters={"A": ((3, 5), {}), "b": ((3,), {})},
            constraint=True,
            arg="A @ x - b",
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(torch.relu(-x), torch.zeros_like(x))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return torch.relu(v)

    @override
    def prox_inplace(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v.relu_()

    @override
    def slope(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return torch.gt(v, 0.0).to(v.dtype)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return indicator(torch.relu(y), torch.zeros_like(y))

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return torch.relu(-x)

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return (torch.zeros_like(v),)
