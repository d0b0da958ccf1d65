"""The l1 ball {‖x‖₁ ≤ radius} along axes."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import Reducing, join, level_set, split, tie
from opteq_cvx.atoms.contract import Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator, soft_threshold
from opteq_cvx.atoms.threshold import level
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.pattern import Op
from opteq_cvx.ir.tree import Node

_ABSOLUTES = Op("sum", (Op("abs"),))


@dataclass(frozen=True, slots=True)
class L1Ball(Reducing):
    """The indicator of {‖x‖₁ ≤ radius}, data `radius` ≥ 0; projection by the soft threshold τ that fits."""

    name = "l1_ball"
    formula = "ι{‖x‖₁ ≤ radius}"
    cost = "O(n log n)"
    source = "Duchi et al. 2008; Condat 2016"
    traits = frozenset({Trait.SET, Trait.EVEN})
    spellings = (
        Spelling(
            text="norm1(x) <= r",
            constraint=True,
            parameters={"r": ((), {"nonneg": True})},
            data={"radius": "r"},
        ),
        Spelling(
            text="sum(abs(x), axis=0) <= 0.5",
            constraint=True,
            variables={"x": (3, 4)},
            static={"axes": (-2,)},
            data={"radius": "0.5"},
        ),
        Spelling(
            text="norm(x, 1) <= r",
            constraint=True,
            variables={"x": (3, 4)},
            parameters={"r": ((), {"nonneg": True})},
            static={"axes": (-2,)},
            data={"radius": "r * np.ones((1, 4))"},
        ),
        Spelling(
            text="norm(x, 'inf') <= 0.5",
            constraint=True,
            variables={"x": (3, 4)},
            data={"radius": "0.5 * np.ones((3, 1))"},
        ),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        found = level_set(node, _ABSOLUTES)
        if found is None:
            return None
        x, axes, radius = found
        return Recognized(x, FrozenDict(axes=axes), FrozenDict(radius=radius))

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs().sum(self.axes, keepdim=True))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        flat = join(v, self.axes)
        tau = level(flat.abs(), join(data["radius"], self.axes), ties=False)
        return split(torch.where(tau < 0, flat, soft_threshold(flat, tau.abs())), self.axes, v.shape)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return data["radius"] * y.abs().amax(self.axes, keepdim=True)

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return torch.relu(x.abs().sum(self.axes, keepdim=True) - data["radius"])

    @override
    def empty(self, data: Data) -> Tensor:
        return ~(data["radius"] >= 0)

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return (tie(v, self.axes, data["radius"]),)
