"""The Huber function, f(x) = x² for |x| ≤ M and 2M|x| − M² beyond, entry by entry."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.ir.pattern import Arg, Op, Par


@dataclass(frozen=True, slots=True)
class Huber(Atom):
    """f as CVXPY's, data `M` ≥ 0; prox v − 2t·clamp(v/(1 + 2t), −M, M), inner derivative at kinks."""

    name = "huber"
    formula = "x² if |x| ≤ M, else 2M|x| − M²"
    cost = "O(n)"
    source = "Moreau envelope of the l1 norm: Parikh, Boyd 2014, section 3.1"
    traits = frozenset({Trait.SEPARABLE, Trait.EVEN, Trait.SMOOTH})
    patterns = (Op("huber", (Arg(), Par("M"))),)
    spellings = (
        Spelling(text="sum(huber(x))", data={"M": "1.0"}),
        Spelling(text="sum(huber(x, M))", parameters={"M": ((), {"nonneg": True})}, data={"M": "M"}),
        Spelling(
            text="w @ huber(x, 0.5)",
            parameters={"w": ((5,), {"nonneg": True})},
            data={"M": "0.5"},
            weight="w",
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        near = torch.clamp(x, -data["M"], data["M"])
        return near * (2.0 * x - near)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v - 2.0 * step * torch.clamp(v / (1.0 + 2.0 * step), -data["M"], data["M"])

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return y * y / 4.0 + indicator(y.abs() - 2.0 * data["M"], y.abs())

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        edge = ((1.0 + 2.0 * step) * data["M"]).expand_as(v)
        return edge, -edge
