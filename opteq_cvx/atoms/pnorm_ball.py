"""The ball {‖x‖_p ≤ radius} of a p-norm, 1 < p < ∞, along axes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import WRONG, Reducing, join, level_set, spike, split
from opteq_cvx.atoms.contract import Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.p_root import NormRoot
from opteq_cvx.atoms.pnorm import check_exponent, norm_along
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.pattern import Op
from opteq_cvx.ir.tree import Node


def onto_ball(v: Tensor, radius: Tensor, p: float, axes: tuple[int, ...]) -> Tensor:
    """The projection of v on {‖x‖_p ≤ radius} along `axes`: by Moreau what the prox of the dual norm leaves."""
    flat = join(v, axes)
    t = join(radius, axes).expand((*flat.shape[:-1], 1))
    return split(NormRoot(p / (p - 1.0), ball=True)(flat, t), axes, v.shape)


@dataclass(frozen=True, slots=True)
class PNormBall(Reducing):
    """The indicator of {‖x‖_p ≤ radius}, static `p`, data `radius` ≥ 0; on the sphere the derivative is the outer one.

    Raises:
        CompileError: p is not above 1 and finite.
    """

    p: float = 3.0

    name = "pnorm_ball"
    formula = "ι{‖x‖_p ≤ radius}, 1 < p < ∞"
    cost = "O(n) a step of the root"
    source = "Moreau: v − prox of radius·‖·‖_q, 1/p + 1/q = 1; Parikh, Boyd 2014, section 6.5"
    traits = frozenset({Trait.SET, Trait.EVEN})
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = (*WRONG, {"p": 1.0}, {"p": math.inf}, {"p": 0.5})
    spellings = (
        Spelling(
            text="pnorm(x, 3) <= r",
            constraint=True,
            parameters={"r": ((), {"nonneg": True})},
            static={"p": 3.0},
            data={"radius": "r"},
        ),
        Spelling(
            text="norm(x - b, 1.5) <= 2",
            constraint=True,
            parameters={"b": ((5,), {})},
            arg="x - b",
            static={"p": 1.5},
            data={"radius": "2.0"},
        ),
        Spelling(
            text="pnorm(x, 4) <= r",
            constraint=True,
            variables={"x": (2, 3)},
            parameters={"r": ((), {"nonneg": True})},
            static={"axes": (-2, -1), "p": 4.0},
            data={"radius": "reshape(r, (1, 1), order='C')"},
        ),
    )

    @override
    def __post_init__(self) -> None:
        Reducing.__post_init__(self)
        check_exponent(self.name, self.p)

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        found = level_set(node, Op("pnorm"))
        if found is None:
            return None
        x, axes, radius = found
        return Recognized(x, FrozenDict(axes=axes, p=node.args[0].attrs["p"]), FrozenDict(radius=radius))

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs().amax(self.axes, keepdim=True))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return onto_ball(v, data["radius"], self.p, self.axes)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return data["radius"] * norm_along(y, self.p / (self.p - 1.0), self.axes)

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return torch.relu(norm_along(x, self.p, self.axes) - data["radius"])

    @override
    def empty(self, data: Data) -> Tensor:
        return ~(data["radius"] >= 0)

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        """A point of the sphere on an axis, where the sphere is flat; for p < 2 its curvature is infinite there."""
        return (spike(v, self.axes, data["radius"]),) if self.p > 2 else ()
