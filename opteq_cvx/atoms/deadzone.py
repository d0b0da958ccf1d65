"""The dead zone, f(x) = max(|x| − m, 0), entry by entry: the ε-insensitive loss."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.pos import positive_part
from opteq_cvx.atoms.primitives import clip, indicator
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.param import neg
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class Deadzone(Atom):
    """f(x) = max(|x| − m, 0), data `m`; the prox leaves |v| ≤ m, stops at m, then shrinks by t.

    Where m < 0 there is no dead zone, f = |x| − m, and the prox is that of |x|.
    """

    name = "deadzone"
    formula = "max(|x| − m, 0)"
    cost = "O(n)"
    source = "Epsilon (Wytock, Wang, Kolter 2015), the scaled-zone family"
    traits = frozenset({Trait.SEPARABLE, Trait.EVEN})
    spellings = (Spelling(text="sum(pos(abs(x) - m))", parameters={"m": ((), {"nonneg": True})}, data={"m": "m"}),)

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        inner = positive_part(node)
        if inner is None or inner.op != "add" or len(inner.args) != 2:
            return None
        for size, shift in (inner.args, inner.args[::-1]):
            if size.op == "abs" and size.args[0].affine is not None and shift.param is not None:
                return Recognized(size.args[0].affine, data=FrozenDict(m=neg(shift.param)))
        return None

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return torch.relu(x.abs() - data["m"])

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        m = torch.relu(data["m"])
        excess = v - clip(v, -m, m)
        return v - torch.clamp(excess, -step, step)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        m = data["m"]
        return torch.relu(m) * y.abs() - torch.relu(-m) + indicator(y.abs() - 1.0, y.abs())

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        m = torch.relu(data["m"])
        near, far = m.expand_as(v), (m + step).expand_as(v)
        return near, -near, far, -far
