"""The largest entry f(x) = max x along axes."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import Reducing, join, split, tie
from opteq_cvx.atoms.contract import Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.threshold import level
from opteq_cvx.ir.pattern import Op


@dataclass(frozen=True, slots=True)
class Max(Reducing):
    """f(x) = max x; prox min(v, τ) with Σ max(v − τ, 0) = t (Moreau with the simplex). min x is −max(−x)."""

    name = "max"
    formula = "max x"
    cost = "O(n log n)"
    source = "Parikh, Boyd 2014, section 6.4.1"
    traits = frozenset({Trait.HOMOGENEOUS})
    patterns = (Op("max"),)
    spellings = (
        Spelling(text="max(x)"),
        Spelling(text="-min(x)", arg="-x"),
        Spelling(text="sum(max(x, axis=0))", variables={"x": (3, 4)}, static={"axes": (-2,)}),
        Spelling(text="max(x)", variables={"x": (2, 3)}, static={"axes": (-2, -1)}),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return x.amax(self.axes, keepdim=True)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        flat = join(v, self.axes)
        tau = level(flat, join(step, self.axes), ties=True)
        return split(torch.where(flat >= tau, tau, flat), self.axes, v.shape)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        total = y.sum(self.axes, keepdim=True)
        negative = torch.relu(-y).sum(self.axes, keepdim=True)
        return indicator((total - 1.0).abs() + negative, y.abs().sum(self.axes, keepdim=True))

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return (tie(v, self.axes, step),)
