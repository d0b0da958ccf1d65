"""The second-order cone {(t, x) : ‖x‖₂ ≤ t}, the two joined along the last axis."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import euclidean, indicator
from opteq_cvx.ir.pattern import Op


@dataclass(frozen=True, slots=True)
class Soc(Atom):
    """The indicator of {[t, x] : ‖x‖₂ ≤ t}; projection ½(1 + t/‖x‖)[‖x‖, x] between the cone and its polar.

    On the boundary of the cone the derivative is that of the middle formula, on that of the polar it is 0.
    """

    name = "soc"
    formula = "ι{‖x‖₂ ≤ t} of [t, x]"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.3.2"
    traits = frozenset({Trait.SET, Trait.CONE})
    patterns = (Op("soc"),)
    spellings = (
        Spelling(text="SOC(t, x)", constraint=True, variables={"t": (), "x": (4,)}, arg="hstack([t, x])"),
        Spelling(text="norm2(x) <= t", constraint=True, variables={"t": (), "x": (4,)}, arg="hstack([t, x])"),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs().amax(-1, keepdim=True))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        t, x = v[..., :1], v[..., 1:]
        norm = euclidean(x)
        between = (norm >= t) & (norm > -t)
        half = torch.where(between, 0.5 * (1.0 + t / torch.where(between, norm, 1.0)), 0.0)
        middle = torch.cat([half * norm, half * x], dim=-1)
        return torch.where(between, middle, torch.where(norm < t, v, v - v))

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        norm = euclidean(y[..., 1:])
        return indicator(torch.relu(norm + y[..., :1]), y.abs().amax(-1, keepdim=True))

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return torch.relu(euclidean(x[..., 1:]) - x[..., :1])

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        x = v[..., 1:]
        norm = euclidean(x)
        return torch.cat([norm, x], dim=-1), torch.cat([-norm, x], dim=-1)
