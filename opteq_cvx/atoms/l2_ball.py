"""The Euclidean ball {‖x‖₂ ≤ radius} along axes."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import LARGEST, Reducing, level_set, spike
from opteq_cvx.atoms.contract import Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.primitives import euclidean, indicator
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.param import Apply
from opteq_cvx.ir.pattern import Op
from opteq_cvx.ir.tree import Node

_SQUARES = Op("sum", (Op("square"),))


@dataclass(frozen=True, slots=True)
class L2Ball(Reducing):
    """The indicator of {‖x‖₂ ≤ radius}, data `radius` ≥ 0; projection v·min(1, radius/‖v‖).

    On the sphere the derivative is that of the outer formula.
    """

    name = "l2_ball"
    formula = "ι{‖x‖₂ ≤ radius}"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.5.1"
    traits = frozenset({Trait.SET, Trait.EVEN})
    spellings = (
        Spelling(
            text="norm2(x) <= r",
            constraint=True,
            parameters={"r": ((), {"nonneg": True})},
            data={"radius": "r"},
        ),
        Spelling(text="sum_squares(x) <= 2", constraint=True, data={"radius": "np.sqrt(2)"}),
        Spelling(
            text="norm2(x, axis=1) <= r",
            constraint=True,
            variables={"x": (3, 4)},
            parameters={"r": ((3,), {"nonneg": True})},
            data={"radius": "reshape(r, (3, 1), order='C')"},
        ),
        Spelling(
            text="norm2(x, axis=0) <= 0.5",
            constraint=True,
            variables={"x": (3, 4)},
            static={"axes": (-2,)},
            data={"radius": "0.5"},
        ),
        Spelling(
            text="mixed_norm(x, 2, 'inf') <= 0.5",
            constraint=True,
            variables={"x": (3, 4)},
            data={"radius": "0.5 * np.ones((3, 1))"},
        ),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        found = level_set(node, Op("norm2"), _SQUARES)
        if found is None:
            return None
        x, axes, radius = found
        f = node.args[0].args[0] if node.args[0].op in LARGEST else node.args[0]
        if f.op == "sum":
            radius = Apply("signed_sqrt", (radius,), radius.shape)
        return Recognized(x, FrozenDict(axes=axes), FrozenDict(radius=radius))

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs().amax(self.axes, keepdim=True))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        norm, radius = euclidean(v, self.axes), data["radius"]
        outside = (norm >= radius) & (norm > 0)
        return v * torch.where(outside, radius / torch.where(outside, norm, 1.0), 1.0)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return data["radius"] * euclidean(y, self.axes)

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return torch.relu(euclidean(x, self.axes) - data["radius"])

    @override
    def empty(self, data: Data) -> Tensor:
        return ~(data["radius"] >= 0)

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return (spike(v, self.axes, data["radius"]),)
