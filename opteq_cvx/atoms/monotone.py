"""The monotone cone {x₁ ≤ x₂ ≤ … ≤ xₙ} along the last axis: isotonic regression."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.chain import chain
from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.ir.pattern import Op


@dataclass(frozen=True, slots=True)
class Monotone(Atom):
    """The indicator of {x₁ ≤ … ≤ xₙ}; the projection is isotonic regression, exact. Neighbors that tie are fused."""

    name = "monotone"
    formula = "ι{x₁ ≤ x₂ ≤ … ≤ xₙ}"
    cost = "O(n log n) for each halving of the pieces, about log n of them"
    source = "Barlow, Bartholomew, Bremner, Brunk 1972; divide and conquer: Kumar, Bach 2017"
    traits = frozenset({Trait.SET, Trait.CONE})
    patterns = (Op("monotone"),)
    spellings = (
        Spelling(text="diff(x) >= 0", constraint=True),
        Spelling(text="x[:-1] <= x[1:]", constraint=True),
        Spelling(text="diff(x) <= 0", constraint=True, arg="x[::-1]"),
        Spelling(text="diff(x, axis=1) >= 0", constraint=True, variables={"x": (2, 4)}),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs().amax(-1, keepdim=True))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        free = v.new_zeros((*(1,) * (v.ndim - 1), v.shape[-1] - 1))
        return chain(v, free + torch.inf, free)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        flow = y.cumsum(-1)
        outside = torch.relu(-flow[..., :-1]).sum(-1, keepdim=True) + flow[..., -1:].abs()
        return indicator(outside, y.abs().sum(-1, keepdim=True))

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return torch.relu(x[..., :-1] - x[..., 1:]).sum(-1, keepdim=True)

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        rising = v.sort(dim=-1).values
        return (torch.cat([rising[..., 1:2], rising[..., 1:]], dim=-1),)
