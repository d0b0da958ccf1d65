"""Residuals of optimality, relative: maximum norms of rows, and what they are taken relative to."""

from collections.abc import Sequence

import torch
from torch import Tensor

WORTHLESS = 0.5
"""Errors relative to the terms that cancel in them are near 1 far from a solution, wherever that is: of two points with
larger errors than this the later one is kept."""


def top(x: Tensor) -> Tensor:
    """The maximum norm of each row, (B, d) → (B,); 0 for empty rows."""
    return x.abs().amax(dim=1) if x.shape[1] else x.new_zeros(x.shape[0])


def most(sizes: Sequence[Tensor]) -> Tensor:
    """The largest of the sizes (B,), at least 1."""
    total = sizes[0]
    for size in sizes[1:]:
        total = torch.maximum(total, size)
    return total.clamp_min(1.0)


def optimality(
    x: Tensor, w: Tensor, y: Tensor, q: Tensor, b: Tensor, kx: Tensor, px: Tensor, ky: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Relative primal ‖Kx + b − w‖, dual ‖Px + q + Kᵀy‖ and gap |xᵀ(Px + q) + yᵀ(w − b)|, each (B,).

    Norms are maximum norms. With y a subgradient of g at w the three vanish exactly at a solution.

    Args:
        x: (B, n); w, y: (B, m); q (1|B, n) and b (1|B, m).
        kx: Kx; px: Px; ky: Kᵀy.
    """
    primal = top(kx + b - w) / most((top(kx), top(w), top(b)))
    dual = top(px + q + ky) / most((top(px), top(ky), top(q)))
    ends = ((x * px).sum(1), (x * q).sum(1), (y * (w - b)).sum(1))
    return primal, dual, (ends[0] + ends[1] + ends[2]).abs() / most([e.abs() for e in ends])
