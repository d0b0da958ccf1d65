"""The set {0}: equality constraints."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.ir.pattern import Op


@dataclass(frozen=True, slots=True)
class Zero(Atom):
    """The indicator of {0}; the projection is 0 (v − v, so that it stays in the graph and NaN stays NaN)."""

    name = "zero"
    formula = "ι{x = 0}"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.2.1"
    traits = frozenset({Trait.SEPARABLE, Trait.SET, Trait.CONE, Trait.INTERVAL, Trait.EVEN})
    patterns = (Op("zero"),)
    spellings = (
        Spelling(text="x == 0", constraint=True),
        Spelling(text="x == b", parameters={"b": ((5,), {})}, constraint=True, arg="x - b"),
        Spelling(
            text="A @ x == b",
            parameters={"A": ((3, 5), {}), "b": ((3,), {})},
            constraint=True,
            arg="A @ x - b",
        ),
        Spelling(text="Zero(x)", constraint=True, variables={"x": (2, 3)}),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(x.abs(), torch.zeros_like(x))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v - v

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return y - y

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return x.abs()
