"""The box {lower ≤ x ≤ upper}."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import clip, indicator
from opteq_cvx.ir.pattern import Arg, Op, Par

_LOW = ((5,), {"bounds": [-1.5, -0.5]})
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
    patterns = (Op("box", (Arg(), Par("lower"), Par("upper"))),)
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
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs())

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return clip(v, data["lower"], data["upper"])

    @override
    def prox_inplace(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v.clamp_(data["lower"], data["upper"])

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
