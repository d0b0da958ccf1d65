"""Residuals of optimality, relative: maximum norms of rows, and what they are taken relative to."""

from collections.abc import Sequence

import torch
from torch import Tensor

from opteq_cvx.splitting.groups import Rows, shared, top_of

WORTHLESS = 0.5
"""Errors relative to the terms that cancel in them are near 1 far from a solution, wherever that is: of two points with
larger errors than this the later one is kept."""

FINER = 100.0  # the accuracy of small rows beside that of the largest
ROUNDING = 8.0  # units of rounding of each part of a gradient that is 0 up to them


def top(x: Tensor) -> Tensor:
    """The maximum norm of each row, (B, d) → (B,); 0 for empty rows."""
    return x.abs().amax(dim=1) if x.shape[1] else x.new_zeros(x.shape[0])


def most(sizes: Sequence[Tensor]) -> Tensor:
    """The largest of the sizes (B,), at least 1."""
    total = sizes[0]
    for size in sizes[1:]:
        total = torch.maximum(total, size)
    return total.clamp_min(1.0)


def cancelled(dtype: torch.dtype) -> float:
    """The share of |Px| and |q| below which their sum is not asked to be accurate, as far as the precision allows.

    Px + q is one gradient, and may be far smaller than its parts where a heavy square is nearly 0.
    """
    return min(1.0, float(1e4 * torch.finfo(dtype).eps ** 0.5))


def stationary(total: Tensor, px: Tensor, q: Tensor, normals: Sequence[Tensor]) -> Tensor:
    """The relative dual residual |total| (B,), total = Px + q + Σ normals.

    It is relative to the gradient Px + q and the normals, not to what cancels in Px + q; rounding of that is allowed.
    """
    share, parts = cancelled(total.dtype), torch.maximum(top(px), top(q))
    left = top(total) - ROUNDING * torch.finfo(total.dtype).eps * parts
    return left.clamp_min(0.0) / most([share * parts, top(px + q), *(top(n) for n in normals)])


def duality(x: Tensor, px: Tensor, q: Tensor, pairs: Sequence[Tensor]) -> Tensor:
    """The relative gap |xᵀ(Px + q) + Σ pairs| (B,), of products normalᵀpoint (B,); what cancels counts as above."""
    share, curved, linear = cancelled(x.dtype), x * px, x * q
    of_p, of_q = curved.sum(1), linear.sum(1)
    gradient = of_p + of_q
    total = gradient + sum(pairs[1:], pairs[0])
    left = total.abs() - ROUNDING * torch.finfo(x.dtype).eps * (curved.abs() + linear.abs()).sum(1)
    sizes = [share * of_p.abs(), share * of_q.abs(), gradient.abs(), *(p.abs() for p in pairs)]
    return left.clamp_min(0.0) / most(sizes)


def feasible(shift: Tensor, kx: Tensor, b: Tensor, w: Tensor, groups: Sequence[Rows]) -> Tensor:
    """The relative primal residual (B,) of shift = Kx + b − w, relative to the row, or its group.

    A heavy norm of rows near 0 would not see an error that is small beside the largest row of the program. A row
    is asked at most `FINER` times the accuracy of the largest, as products of large coordinates may cancel in it.
    """
    sizes = torch.maximum(torch.maximum(kx.abs(), w.abs()), b.abs())
    sizes = torch.maximum(sizes, top(sizes)[:, None] / FINER).clamp_min(1.0)
    return top(shift / shared(sizes, groups, top_of))


def optimality(
    x: Tensor,
    w: Tensor,
    y: Tensor,
    q: Tensor,
    b: Tensor,
    kx: Tensor,
    px: Tensor,
    ky: Tensor,
    groups: Sequence[Rows] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """Relative primal ‖Kx + b − w‖, dual ‖Px + q + Kᵀy‖ and gap |xᵀ(Px + q) + yᵀ(w − b)|, each (B,).

    Norms are maximum norms. With y a subgradient of g at w the three vanish exactly at a solution.

    Args:
        x: (B, n); w, y: (B, m); q (1|B, n) and b (1|B, m).
        kx: Kx; px: Px; ky: Kᵀy.
        groups: rows whose sizes count together.
    """
    primal = feasible(kx + b - w, kx, b, w, groups)
    return primal, stationary(px + q + ky, px, q, [ky]), duality(x, px, q, [(y * (w - b)).sum(1)])
