"""The second-order cone {(t, x) : ‖x‖₂ ≤ t}, the two joined along the last axis."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import below, joining, spike
from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.primitives import euclidean, indicator
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.linmap import Reshape
from opteq_cvx.ir.pattern import Op
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class Soc(Atom):
    """The indicator of {[t, x] : ‖x‖₂ ≤ t}; projection ½(1 + t/‖x‖)[‖x‖, x] between the cone and its polar.

    On the boundary of the cone the derivative is that of the middle formula, on that of the polar it is 0.
    """

    name = "soc"
    formula = "ι{‖x‖₂ ≤ t} of [t, x]"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.3.2"
    traits = frozenset({Trait.SET, Trait.CONE})
    spellings = (
        Spelling(text="SOC(t, x)", constraint=True, variables={"t": (), "x": (4,)}, arg="hstack([t, x])"),
        Spelling(text="norm2(x) <= t", constraint=True, variables={"t": (), "x": (4,)}, arg="hstack([t, x])"),
        Spelling(
            text="norm2(x, axis=0) <= t",
            constraint=True,
            variables={"t": (4,), "x": (3, 4)},
            arg="hstack([reshape(t, (4, 1), order='C'), x.T])",
        ),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        if node.op == "soc":
            return None if node.args[0].affine is None else Recognized(node.args[0].affine)
        found = below(node, Op("norm2"))
        if found is None or found[1].affine is None:
            return None
        _, bound, x, axes = found
        assert bound.affine is not None
        rows = aff.image(joining(x.shape, axes), x)
        head = aff.image(Reshape(bound.shape, (*rows.shape[:-1], 1), "C"), bound.affine)
        return Recognized(aff.join([head, rows]))

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs().amax(-1, keepdim=True))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        t, x = v[..., :1], v[..., 1:]
        norm = euclidean(x)
        between = (norm >= t) & (norm > -t)
        half = torch.where(between, 0.5 * (1.0 + t / torch.where(between, norm, 1.0)), 0.0)
        middle = torch.cat([half * norm, half * x], dim=-1)
        return torch.where(between, middle, torch.where(norm < t, v, v - v))

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        norm = euclidean(y[..., 1:])
        return indicator(torch.relu(norm + y[..., :1]), y.abs().amax(-1, keepdim=True))

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return torch.relu(euclidean(x[..., 1:]) - x[..., :1])

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        one = torch.ones_like(v[..., :1])
        pole = spike(v[..., 1:], (-1,), one)
        return torch.cat([one, pole], dim=-1), torch.cat([-one, pole], dim=-1)
