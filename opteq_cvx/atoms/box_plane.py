"""A box cut by a hyperplane or a half-space, {l ≤ x ≤ u, ⟨a, x⟩ = b} or ≤ b, along axes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import WRONG, Reducing, join, split
from opteq_cvx.atoms.contract import Data, Spelling, Trait
from opteq_cvx.atoms.primitives import clip, indicator, underived
from opteq_cvx.atoms.threshold import plane_level
from opteq_cvx.ir.frozen import Shape

_A: tuple[Shape, Mapping[str, Any]] = ((5,), {})
_INF = "np.inf"


@dataclass(frozen=True, slots=True)
class BoxPlane(Reducing):
    """The indicator of {lower ≤ x ≤ upper, ⟨normal, x⟩ = total}, with `below` ≤ total.

    The projection is clip(v − μa, l, u), μ the root of ⟨a, clip(v − μa, l, u)⟩ = total, at least 0 with `below`.
    Data: lower, upper, normal in the argument's shape, total in the reduced shape.
    """

    below: bool = False

    name = "box_plane"
    formula = "ι{l ≤ x ≤ u, ⟨a, x⟩ = b (or ≤ b)}"
    cost = "O(n log n); O(n) a step of the root in large batches"
    source = "Held, Wolfe, Crowder 1974; Kiwiel, *Breakpoint searching algorithms*, 2008"
    traits = frozenset({Trait.SET})
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = WRONG
    spellings = (
        Spelling(
            text="[x >= 0, x <= 1, sum(x) == 1.5]",
            constraint=True,
            data={"lower": "0.0", "upper": "1.0", "normal": "1.0", "total": "1.5"},
        ),
        Spelling(
            text="[x >= 0, a @ x == 1]",
            constraint=True,
            parameters={"a": ((5,), {"pos": True})},
            data={"lower": "0.0", "upper": _INF, "normal": "a", "total": "1.0"},
        ),
        Spelling(
            text="[abs(x) <= 1, a @ x == r]",
            constraint=True,
            parameters={"a": _A, "r": ((), {"bounds": [-0.5, 0.5]})},
            data={"lower": "-1.0", "upper": "1.0", "normal": "a", "total": "r"},
        ),
        Spelling(
            text="[x >= 0, sum(x) <= r]",
            constraint=True,
            parameters={"r": ((), {"nonneg": True})},
            static={"below": True},
            data={"lower": "0.0", "upper": _INF, "normal": "1.0", "total": "r"},
        ),
        Spelling(
            text="[x >= 0, x <= 1, sum(x, axis=0) >= 1.5]",
            constraint=True,
            variables={"x": (3, 2)},
            static={"axes": (-2,), "below": True},
            data={"lower": "0.0", "upper": "1.0", "normal": "-1.0", "total": "-1.5"},
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        size = (x * data["normal"]).abs().sum(self.axes, keepdim=True)
        return indicator(self.violation(x, data), size)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        x, low, high, a = (join(t.expand_as(v), self.axes) for t in (v, data["lower"], data["upper"], data["normal"]))
        b = join(data["total"], self.axes)
        mu = plane_level(x, low, high, a, b)
        if self.below:
            mu = mu.clamp(min=0.0)
        if underived(v, *data.values()):
            return split(torch.minimum(torch.maximum(x - mu * a, low), high), self.axes, v.shape)
        moved = (x - mu * a).detach()
        free = (moved > low) & (moved < high) & (a != 0)
        fixed = torch.where(a != 0, torch.where(moved <= low, low, high), clip(x, low, high))
        slope = torch.where(free, a * a, 0.0).sum(-1, keepdim=True)
        rest = (a * torch.where(free, x, fixed)).sum(-1, keepdim=True) - b
        exact = torch.where(slope > 0, rest / torch.where(slope > 0, slope, 1.0), mu)
        if self.below:
            exact = torch.where(mu > 0, exact, torch.where(self._over(x, low, high, a, b), exact, 0.0))
        onto = torch.where(free, x - exact * a, fixed)
        return split(torch.where(x.isnan(), x, onto), self.axes, v.shape)

    @staticmethod
    def _over(x: Tensor, low: Tensor, high: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Whether the clipped point lies on the plane or beyond."""
        return (a * clip(x, low, high)).sum(-1, keepdim=True) >= b

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        gap = (data["normal"] * x).sum(self.axes, keepdim=True) - data["total"]
        out = torch.relu(data["lower"] - x) + torch.relu(x - data["upper"])
        return (torch.relu(gap) if self.below else gap.abs()) + out.sum(self.axes, keepdim=True)

    @override
    def empty(self, data: Data) -> Tensor:
        a = data["normal"]
        one, other = (torch.where(a == 0, 0.0, a * data[end]) for end in ("lower", "upper"))
        least = torch.minimum(one, other).sum(self.axes, keepdim=True)
        most = torch.maximum(one, other).sum(self.axes, keepdim=True)
        crossed = (data["lower"] > data["upper"]).any(self.axes[0], keepdim=True)
        for axis in self.axes[1:]:
            crossed = crossed.any(axis, keepdim=True)
        outside = data["total"] < least
        return crossed | (outside if self.below else outside | (data["total"] > most))
