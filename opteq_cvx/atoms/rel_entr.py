"""The relative entropy f(x, y) = x ln(x/y) ; the last axis holds the pair."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.arguments import stacked
from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.kl_div import kl_prox
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class RelEntr(Atom):
    """f(x, y) = x ln(x/y) for x ≥ 0, y > 0, and 0 at the origin: kl_div with the tilt x − y."""

    name = "rel_entr"
    formula = "x ln(x/y) of [x, y]"
    cost = "O(n)"
    source = "kl_div with a tilt: Combettes, Pesquet, arXiv 0912.3522, table 10.1"
    traits = frozenset({Trait.HOMOGENEOUS})
    spellings = (
        Spelling(
            text="sum(rel_entr(x, y))",
            variables={"x": (5,), "y": (5,)},
            arg="stack([x, y], axis=-1)",
            draw=(0.1, 3.0),
        ),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        arg = stacked(node, "rel_entr")
        return None if arg is None else Recognized(arg)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        x, y = x[..., :1], x[..., 1:]
        inside = (x >= 0) & (y > 0) | (x == 0) & (y == 0)
        p, q = torch.where(inside, x, 1.0), torch.where(inside & (y > 0), y, 1.0)
        return torch.where(inside, torch.xlogy(p, p / q), torch.inf)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return kl_prox(v - torch.cat([step, -step], dim=-1), step)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        p, q = (y[..., :1] - 1.0).exp(), y[..., 1:]
        return indicator(torch.relu(p + q), p + q.abs())
