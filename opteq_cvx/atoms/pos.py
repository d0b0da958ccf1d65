"""The positive part, f(x) = max(x, 0), entry by entry: hinge losses; neg(x) is pos(−x)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.ir.param import is_zero
from opteq_cvx.ir.tree import Node


def positive_part(node: Node) -> Node | None:
    """The argument of `pos(x)` or of `maximum(x, 0)` in either order; None where `node` is neither."""
    if node.op == "pos":
        return node.args[0]
    if node.op != "maximum" or len(node.args) != 2:
        return None
    for x, bound in (node.args, node.args[::-1]):
        if bound.param is not None and is_zero(bound.param) and x.shape == node.shape:
            return x
    return None


@dataclass(frozen=True, slots=True)
class Pos(Atom):
    """f(x) = max(x, 0); prox v − min(max(v, 0), t), with derivative 0 at 0 and at t."""

    name = "pos"
    formula = "max(x, 0)"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.1.3"
    traits = frozenset({Trait.SEPARABLE, Trait.HOMOGENEOUS})
    spellings = (
        Spelling(text="sum(pos(x))"),
        Spelling(text="sum(maximum(x, 0))", variables={"x": (2, 3)}),
        Spelling(text="sum(neg(x))", arg="-x"),
        Spelling(text="sum(pos(1 - x))", arg="1 - x"),
        Spelling(text="w @ pos(x)", parameters={"w": ((5,), {"nonneg": True})}, weight="w"),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        x = positive_part(node)
        return None if x is None or x.affine is None else Recognized(x.affine)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return torch.relu(x)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v - torch.clamp(v, torch.zeros_like(step), step)

    @override
    def prox_inplace(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v.sub_(torch.clamp(v, torch.zeros_like(step), step))

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return indicator(torch.relu(-y) + torch.relu(y - 1.0), y.abs())

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return torch.zeros_like(v), step.expand_as(v)
