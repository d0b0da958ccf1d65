"""The quadratic form, f(x) = xᵀPx, with P constant, weight or input."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.ir.pattern import Arg, Op, Par


@dataclass(frozen=True, slots=True)
class QuadForm(Atom):
    """f(x) = xᵀPx over the last axis, P ⪰ 0 (*batch, n, n); prox (I + t(P + Pᵀ))⁻¹v by Cholesky.

    An indefinite P gives a meaningless prox without raising: the planner certifies P and sets the status.
    """

    name = "quad_form"
    formula = "xᵀPx"
    cost = "O(n³)"
    source = "Parikh, Boyd 2014, section 6.1.1"
    traits = frozenset({Trait.QUADRATIC, Trait.SMOOTH, Trait.EVEN})
    patterns = (Op("quad_form", (Arg(), Par("P"))),)
    spellings = (
        Spelling(text="quad_form(x, P)", parameters={"P": ((5, 5), {"PSD": True})}, data={"P": "P"}),
        Spelling(
            text="quad_form(x - b, psd_wrap(G @ G.T))",
            parameters={"G": ((5, 3), {}), "b": ((5,), {})},
            arg="x - b",
            data={"P": "G @ G.T"},
        ),
        Spelling(
            text="lam * quad_form(x, P)",
            parameters={"P": ((5, 5), {"PSD": True}), "lam": ((), {"nonneg": True})},
            data={"P": "P"},
            weight="lam",
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return (x * (data["P"] @ x.unsqueeze(-1)).squeeze(-1)).sum(-1, keepdim=True)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        p = data["P"]
        eye = torch.eye(v.shape[-1], dtype=v.dtype, device=v.device)
        factor, _ = torch.linalg.cholesky_ex(eye + step.unsqueeze(-1) * (p + p.mT))
        return torch.cholesky_solve(v.unsqueeze(-1), factor).squeeze(-1)

    @override
    def conjugate(self, y: Tensor, data: Data) -> None:
        return None
