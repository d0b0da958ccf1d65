"""The squared positive part, f(x) = max(x, 0)², entry by entry: the squared hinge."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.pos import positive_part
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class SquarePos(Atom):
    """f(x) = max(x, 0)²; prox v/(1 + 2t) for v ≥ 0 and v below, with derivative 1/(1 + 2t) at 0."""

    name = "square_pos"
    formula = "max(x, 0)²"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.1 (scalar functions)"
    traits = frozenset({Trait.SEPARABLE, Trait.SMOOTH})
    spellings = (
        Spelling(text="sum(square(pos(x)))"),
        Spelling(text="sum_squares(pos(1 - x))", arg="1 - x"),
        Spelling(text="sum_squares(neg(x))", arg="-x"),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        x = positive_part(node.args[0]) if node.op == "square" else None
        return None if x is None or x.affine is None else Recognized(x.affine)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return torch.relu(x) * x

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return torch.where(v >= 0, v / (1.0 + 2.0 * step), v)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return y * y / 4.0 + indicator(torch.relu(-y), y.abs())

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return (torch.zeros_like(v),)
