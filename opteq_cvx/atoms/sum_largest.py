"""The sum of the k largest entries, along axes; k may be fractional (conditional value at risk)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import WRONG, Reducing, join, split
from opteq_cvx.atoms.contract import Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.threshold import capped_level
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.pattern import Op


@dataclass(frozen=True, slots=True)
class SumLargest(Reducing):
    """f(x) = x₍₁₎ + … + x₍ₖ₎; prox v − min(max(v − τ, 0), t) with τ so that the subtracted part sums to k·t.

    It is Moreau's identity with the set {0 ≤ y ≤ 1, Σ y = k}.
    """

    k: float = 1.0

    name = "sum_largest"
    formula = "sum of the k largest x"
    cost = "O(n log n)"
    source = "Wang, Lu, *Projection onto the capped simplex*, arXiv 1503.01002"
    traits = frozenset({Trait.HOMOGENEOUS})
    patterns = (Op("sum_largest"),)
    copied: ClassVar[tuple[str, ...]] = ("k",)
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = (*WRONG, {"k": 0.0}, {"k": -1.0})
    spellings = (
        Spelling(text="sum_largest(x, 2)", variables={"x": (6,)}, static={"k": 2.0}),
        Spelling(text="sum_largest(x, 2.5)", variables={"x": (6,)}, static={"k": 2.5}),
        Spelling(text="cvar(x, 0.5)", variables={"x": (6,)}, static={"k": 3.0}, weight="1 / 3"),
        Spelling(text="-sum_smallest(x, 2)", variables={"x": (6,)}, arg="-x", static={"k": 2.0}),
        Spelling(text="sum_largest(x, 3)", variables={"x": (2, 3)}, static={"k": 3.0, "axes": (-2, -1)}),
    )

    @override
    def __post_init__(self) -> None:
        Reducing.__post_init__(self)
        if self.k <= 0:
            raise CompileError(message(f"sum_largest got k={self.k}", "k > 0", "give a positive number"))

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        top = join(x, self.axes).sort(dim=-1, descending=True).values
        rank = torch.arange(top.shape[-1], dtype=x.dtype, device=x.device)
        total = (top * (self.k - rank).clamp(0.0, 1.0)).sum(-1, keepdim=True)
        return split(total, self.axes, (1,) * x.ndim)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        flat, t = join(v, self.axes), join(step, self.axes)
        k = min(self.k, float(flat.shape[-1]))
        tau = capped_level(flat, t, k * t)
        full = flat - tau > t
        missing = k - full.sum(-1, keepdim=True)
        free = (flat >= tau) & ~full & (missing > 0)  # k full entries leave the others alone, wherever τ rounds to
        fixed = t * missing
        number = free.sum(-1, keepdim=True)
        tau = (torch.where(free, flat, 0.0).sum(-1, keepdim=True) - fixed) / number.clamp(min=1)
        return split(torch.where(free, tau, torch.where(full, flat - t, flat)), self.axes, v.shape)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        outside = (torch.relu(-y) + torch.relu(y - 1.0)).sum(self.axes, keepdim=True)
        total = y.sum(self.axes, keepdim=True)
        return indicator(outside + (total - self.k).abs(), y.abs().sum(self.axes, keepdim=True))
