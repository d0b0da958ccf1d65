"""Total variation Σ w |xᵢ₊₁ − xᵢ| along the last axis."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.chain import chain
from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.ir.pattern import Arg, Op, Par


@dataclass(frozen=True, slots=True)
class Tv(Atom):
    """f(x) = Σ wᵢ |xᵢ₊₁ − xᵢ|, data `w` ≥ 0 of length n − 1; the prox is exact. Differences that tie stay fused.

    Differences along paths only: in two dimensions and on graphs the differences keep their own terms.
    """

    name = "tv"
    formula = "Σ wᵢ |xᵢ₊₁ − xᵢ|"
    cost = "O(n log n) for each halving of the pieces, about log n of them"
    source = "Johnson 2013; Kumar, Bach, *Active-set methods for submodular minimization problems*, 2017"
    traits = frozenset({Trait.HOMOGENEOUS, Trait.EVEN})
    patterns = (Op("tv", (Arg(), Par("w"))),)
    spellings = (
        Spelling(text="tv(x)", data={"w": "1.0"}),
        Spelling(
            text="lam * norm1(diff(x))",
            parameters={"lam": ((), {"nonneg": True})},
            data={"w": "1.0"},
            weight="lam",
        ),
        Spelling(text="norm1(diff(x, axis=1))", variables={"x": (3, 4)}, data={"w": "1.0"}),
        Spelling(text="norm1(diff(x, axis=0))", variables={"x": (4, 2)}, arg="x.T", data={"w": "1.0"}),
        Spelling(text="w @ abs(diff(x))", parameters={"w": ((4,), {"nonneg": True})}, data={"w": "w"}),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return (data["w"] * (x[..., 1:] - x[..., :-1]).abs()).sum(-1, keepdim=True)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        weight = step * data["w"]
        return chain(v, weight, weight)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        flow = y.cumsum(-1)
        outside = torch.relu(flow[..., :-1].abs() - data["w"]).sum(-1, keepdim=True)
        return indicator(outside + flow[..., -1:].abs(), y.abs().sum(-1, keepdim=True))

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        first = torch.arange(v.shape[-1], device=v.device) == 0
        height = step * data["w"][..., :1] * (v.shape[-1] / (v.shape[-1] - 1))
        return (torch.where(first, height, 0.0).expand_as(v),)
