"""The dead zone, f(x) = max(|x| − m, 0), entry by entry: the ε-insensitive loss."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import clip, indicator
from opteq_cvx.ir.pattern import Arg, Op, Par


@dataclass(frozen=True, slots=True)
class Deadzone(Atom):
    """f(x) = max(|x| − m, 0), data `m` ≥ 0; the prox leaves |v| ≤ m, stops at m, then shrinks by t."""

    name = "deadzone"
    formula = "max(|x| − m, 0)"
    cost = "O(n)"
    source = "theory.md section 12.2, cases of |v| against m and m + t"
    traits = frozenset({Trait.SEPARABLE, Trait.EVEN})
    patterns = (Op("deadzone", (Arg(), Par("m"))),)
    spellings = (
        Spelling(text="sum(pos(abs(x) - m))", parameters={"m": ((), {"nonneg": True})}, data={"m": "m"}),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return torch.relu(x.abs() - data["m"])

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        excess = v - clip(v, -data["m"], data["m"])
        return v - torch.clamp(excess, -step, step)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return data["m"] * y.abs() + indicator(y.abs() - 1.0, y.abs())

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        near, far = data["m"].expand_as(v), (data["m"] + step).expand_as(v)
        return near, -near, far, -far
