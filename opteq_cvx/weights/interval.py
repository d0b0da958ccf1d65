"""Interval: weights with bounds, scalar or per entry, one-sided or two-sided."""

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Array
from opteq_cvx.weights.half_line import softplus, softplus_inverse
from opteq_cvx.weights.part import Part, constant

EDGE = 1e-4
"""How far inside an entry on a bound is moved, relative to the width of its interval."""


class Interval(Part):
    """l ≤ y ≤ u, entry by entry, with l and u broadcast against y.

    Two-sided: y = l·σ(−v) + u·σ(v) with σ the sigmoid. One-sided: y = l + softplus(v) or y = u − softplus(v).
    Unbounded entries: y = v; entries with l = u are constant.

    Source: Lezcano-Casado, *Trivializations*, arXiv 1909.09501.
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, lower: Array, upper: Array) -> None:
        super().__init__()
        self.register_buffer("lower", torch.tensor(lower, dtype=torch.float64), persistent=False)
        self.register_buffer("upper", torch.tensor(upper, dtype=torch.float64), persistent=False)

    @override
    def forward(self, raw: Tensor) -> Tensor:
        l, u = _within(self.lower, raw, up=True), _within(self.upper, raw, up=False)
        below, above = torch.isfinite(l), torch.isfinite(u)
        low, high = torch.where(below, l, 0.0), torch.where(above, u, 0.0)
        both = low * torch.sigmoid(-raw) + high * torch.sigmoid(raw)
        positive = softplus(raw)
        one = torch.where(below, low + positive, torch.where(above, high - positive, raw))
        # Rounding alone can pass a bound, where the derivative is 0 to rounding too.
        return torch.minimum(torch.maximum(torch.where(below & above, both, one), l), u)

    @override
    def right_inverse(self, value: Tensor) -> Tensor:
        l, u = self.lower, self.upper
        below, above = torch.isfinite(l), torch.isfinite(u)
        free = (value > l) & (value < u)
        up, down = torch.where(free & below, value - l, 1.0), torch.where(free & above, u - value, 1.0)
        two = torch.log(up) - torch.log(down)
        one = torch.where(below, softplus_inverse(up), torch.where(above, softplus_inverse(down), value))
        return torch.where(below & above, two, one)

    @override
    def project(self, value: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(value, self.lower), self.upper)

    @override
    def inside(self, value: Tensor) -> Tensor:
        l, u = self.lower, self.upper
        below, above = torch.isfinite(l), torch.isfinite(u)
        width = torch.where(below & above, u - l, torch.where(below, l, torch.where(above, u, 0.0)).abs() + 1.0)
        edge = EDGE * width
        moved = torch.minimum(torch.maximum(value, l + edge), u - edge)
        return torch.where((value > l) & (value < u) | (l == u), value, moved)

    @override
    def polish(self, value: Tensor) -> Tensor:
        return self.project(value)


def _within(bound: Tensor, like: Tensor, *, up: bool) -> Tensor:
    """`bound` in the dtype of `like`, rounded inward (up for a lower bound)."""
    near = constant(bound, like)
    if like.dtype in (torch.float64, torch.float16):  # exact; torch has no nextafter in half precision
        return near
    toward = torch.full_like(near, torch.inf if up else -torch.inf)
    outside = near.double() < bound if up else near.double() > bound
    return torch.where(outside, torch.nextafter(near, toward), near)
