"""The box {lower ≤ x ≤ upper}."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import level_set
from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.primitives import clip, indicator
from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.param import const, neg
from opteq_cvx.ir.pattern import Arg, Op, Par, match
from opteq_cvx.ir.tree import Node

_BOX = Op("box", (Arg(), Par("lower"), Par("upper")))
_LOW = ((5,), {"bounds": [-1.5, -0.5]})
_R: Mapping[str, Any] = {"r": ((), {})}
_HIGH = ((5,), {"bounds": [0.5, 1.5]})


@dataclass(frozen=True, slots=True)
class Box(Atom):
    """The indicator of {lower ≤ x ≤ upper}, ±inf where there is no bound; the projection clips.

    A bound takes the derivative of the entries that sit on it. Where lower > upper the set is `empty`.
    """

    name = "box"
    formula = "ι{lower ≤ x ≤ upper}"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.2.4"
    traits = frozenset({Trait.SEPARABLE, Trait.SET, Trait.INTERVAL})
    spellings = (
        Spelling(
            text="",
            constraint=True,
            attributes={"x": {"bounds": [-1.0, 0.5]}},
            data={"lower": "-1.0", "upper": "0.5"},
        ),
        Spelling(
            text="[l <= x, x <= u]",
            constraint=True,
            parameters={"l": _LOW, "u": _HIGH},
            data={"lower": "l", "upper": "u"},
        ),
        Spelling(text="x >= 1", constraint=True, data={"lower": "1.0", "upper": "np.inf"}),
        Spelling(text="x <= u", constraint=True, parameters={"u": _HIGH}, data={"lower": "-np.inf", "upper": "u"}),
        Spelling(text="max(x) <= r", constraint=True, parameters=_R, data={"lower": "-np.inf", "upper": "r"}),
        Spelling(text="abs(x) <= 1", constraint=True, data={"lower": "-1.0", "upper": "1.0"}),
        Spelling(
            text="norm_inf(x) <= r",
            constraint=True,
            parameters={"r": ((), {"nonneg": True})},
            data={"lower": "-r", "upper": "r"},
        ),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        if node.op == "box":
            hit = match(_BOX, node)
            if hit is None or hit.bound["x"].affine is None:
                return None
            x, bounds = hit.bound["x"].affine, {k: hit.bound[k].param for k in ("lower", "upper")}
            return Recognized(x, data=FrozenDict(bounds))
        found = level_set(node, Op("abs"), Op("norm_inf"), Op("max"))
        if found is None:
            return None
        upper = act.spread(found[2], found[0].shape)
        if node.args[0].op == "max":
            free = act.spread(const(-np.inf), upper.shape)
            return Recognized(found[0], data=FrozenDict(lower=free, upper=upper))
        return Recognized(found[0], data=FrozenDict(lower=neg(upper), upper=upper))

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs())

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return clip(v, data["lower"], data["upper"])

    @override
    def prox_inplace(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v.clamp_min_(data["lower"]).clamp_max_(data["upper"])

    @override
    def slope(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return torch.gt(v, data["lower"]).logical_and_(v < data["upper"]).to(v.dtype)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        support = torch.where(y > 0, data["upper"], data["lower"]) * y
        return torch.where(y == 0, 0.0, support)

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return torch.relu(data["lower"] - x) + torch.relu(x - data["upper"])

    @override
    def empty(self, data: Data) -> Tensor:
        return data["lower"] > data["upper"]

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return data["lower"].expand_as(v), data["upper"].expand_as(v)
