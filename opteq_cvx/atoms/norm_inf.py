"""The largest absolute value f(x) = ‖x‖_∞ along axes."""

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
class NormInf(Reducing):
    """f(x) = max |x|; prox: v cut at ±τ with Σ max(|v| − τ, 0) = t, or 0 where ‖v‖₁ ≤ t (Moreau, l1 ball)."""

    name = "norm_inf"
    formula = "‖x‖_∞"
    cost = "O(n log n)"
    source = "Parikh, Boyd 2014, section 6.5.2"
    traits = frozenset({Trait.HOMOGENEOUS, Trait.EVEN})
    patterns = (Op("norm_inf"), Op("max", (Op("abs"),)))
    spellings = (
        Spelling(text="norm_inf(x)"),
        Spelling(text="norm(x, 'inf')"),
        Spelling(text="max(abs(x))"),
        Spelling(text="sum(norm_inf(x, axis=0))", variables={"x": (3, 4)}, static={"axes": (-2,)}),
        Spelling(text="norm_inf(x)", variables={"x": (2, 3)}, static={"axes": (-2, -1)}),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return x.abs().amax(self.axes, keepdim=True)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        flat, t = join(v, self.axes), join(step, self.axes)
        size = flat.abs()
        tau = torch.relu(level(size, t, ties=True))
        return split(torch.where(size >= tau, flat.sign() * tau, flat), self.axes, v.shape)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        norm = y.abs().sum(self.axes, keepdim=True)
        return indicator(norm - 1.0, norm)

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return (tie(v, self.axes, step),)
