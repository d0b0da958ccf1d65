"""HalfLine: nonneg, pos, nonpos and neg weights."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from opteq_cvx.weights.part import Part

START = 1e-4
"""Where an entry on the boundary is moved to, relative to the mean size of the others (softplus has no 0)."""

STRICT = 1e-12
"""How far from 0 the entries of a `pos` or `neg` weight stay, whatever the dtype."""

LINEAR_FROM = 50.0
"""softplus(v) = v from here on; torch's default of 20 would cost accuracy in float64."""


def softplus(v: Tensor) -> Tensor:
    """log(1 + eᵛ), to rounding."""
    return nn.functional.softplus(v, threshold=LINEAR_FROM)


def softplus_inverse(y: Tensor) -> Tensor:
    """v with softplus(v) = y > 0: v = y + log(−expm1(−y))."""
    return y + torch.log(-torch.expm1(-y))


class HalfLine(Part):
    """y = sign · (softplus(v) + floor), entry by entry.

    Source: Lezcano-Casado, *Trivializations*, arXiv 1909.09501.
    """

    def __init__(self, *, sign: int, strict: bool) -> None:
        super().__init__()
        self.sign = sign
        self.floor = STRICT if strict else 0.0

    @override
    def forward(self, raw: Tensor) -> Tensor:
        return self.sign * (softplus(raw) + self.floor)

    @override
    def right_inverse(self, value: Tensor) -> Tensor:
        return softplus_inverse(self.sign * value - self.floor)

    @override
    def project(self, value: Tensor) -> Tensor:
        return self.sign * (self.sign * value).clamp(min=0.0)

    @override
    def inside(self, value: Tensor) -> Tensor:
        size = self.sign * value
        free = size > self.floor
        if bool(free.all()):
            return value
        scale = float(size[free].mean()) if bool(free.any()) else 1.0
        start = max(START * scale, 2 * self.floor, torch.finfo(torch.float32).tiny)
        return self.sign * torch.where(free, size, start)
