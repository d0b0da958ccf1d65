"""The fused lasso Σ w |xᵢ₊₁ − xᵢ| + m Σ |xᵢ| along the last axis."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.chain import chain
from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import soft_threshold
from opteq_cvx.ir.pattern import Arg, Op, Par


@dataclass(frozen=True, slots=True)
class FusedLasso(Atom):
    """f(x) = Σ wᵢ |xᵢ₊₁ − xᵢ| + m Σ |xᵢ|, data `w` ≥ 0 (n − 1 entries) and `m` ≥ 0; prox of tv, then of the l1 norm."""

    name = "fused_lasso"
    formula = "Σ wᵢ |xᵢ₊₁ − xᵢ| + m ‖x‖₁"
    cost = "that of tv"
    source = "Friedman, Hastie, Höfling, Tibshirani, *Pathwise coordinate optimization*, 2007, section 4"
    traits = frozenset({Trait.HOMOGENEOUS, Trait.EVEN})
    patterns = (Op("fused_lasso", (Arg(), Par("w"), Par("m"))),)
    spellings = (
        Spelling(text="tv(x) + 0.3 * norm1(x)", data={"w": "1.0", "m": "0.3"}),
        Spelling(
            text="lam * norm1(x) + mu * tv(x)",
            parameters={"lam": ((), {"nonneg": True}), "mu": ((), {"nonneg": True})},
            data={"w": "mu", "m": "lam"},
        ),
        Spelling(text="norm1(diff(x, axis=1)) + norm1(x)", variables={"x": (3, 4)}, data={"w": "1.0", "m": "1.0"}),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        jumps = (data["w"] * (x[..., 1:] - x[..., :-1]).abs()).sum(-1, keepdim=True)
        return jumps + data["m"] * x.abs().sum(-1, keepdim=True)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        weight = step * data["w"]
        return soft_threshold(chain(v, weight, weight), step * data["m"])

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        first = torch.arange(v.shape[-1], device=v.device) == 0
        height = step * data["w"][..., :1] * (v.shape[-1] / (v.shape[-1] - 1))
        return (2.0 * step * data["m"] + torch.where(first, height, 0.0).expand_as(v),)
