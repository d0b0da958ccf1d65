"""The simplex {x ≥ 0, Σ x = total} along axes."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import Reducing, join, split, tie
from opteq_cvx.atoms.contract import Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.threshold import level, water
from opteq_cvx.ir.pattern import Arg, Op, Par


@dataclass(frozen=True, slots=True)
class Simplex(Reducing):
    """The indicator of {x ≥ 0, Σ x = total}, data `total` ≥ 0 (reduced shape); projection max(v − τ, 0)."""

    name = "simplex"
    formula = "ι{x ≥ 0, Σ x = total}"
    cost = "O(n log n)"
    source = "Held, Wolfe, Crowder 1974; Condat 2016"
    traits = frozenset({Trait.SET})
    patterns = (Op("simplex", (Arg(), Par("total"))),)
    spellings = (
        Spelling(text="[x >= 0, sum(x) == 1]", constraint=True, data={"total": "1.0"}),
        Spelling(
            text="[x >= 0, sum(x) == r]",
            constraint=True,
            parameters={"r": ((), {"nonneg": True})},
            data={"total": "r"},
        ),
        Spelling(
            text="[x >= 0, sum(x, axis=0) == 1]",
            constraint=True,
            variables={"x": (3, 4)},
            static={"axes": (-2,)},
            data={"total": "1.0"},
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs().sum(self.axes, keepdim=True))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        flat = join(v, self.axes)
        tau = level(flat, join(data["total"], self.axes), ties=False)
        return split(torch.relu(flat - tau), self.axes, v.shape)

    @override
    def prox_inplace(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        if self.axes != (-1,):
            return self.prox(v, step, data)
        return v.sub_(water(v, data["total"])).relu_()

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return data["total"] * y.amax(self.axes, keepdim=True)

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        gap = x.sum(self.axes, keepdim=True) - data["total"]
        return gap.abs() + torch.relu(-x).sum(self.axes, keepdim=True)

    @override
    def empty(self, data: Data) -> Tensor:
        return data["total"] < 0

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return (tie(v, self.axes, data["total"]),)
