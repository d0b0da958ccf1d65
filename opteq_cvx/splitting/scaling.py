"""Row and column scales of a graph form: Ruiz equilibration of [[P, Kᵀ], [K, 0]], as a metric.

Scaling rows by D and columns by E in ADMM equals running it unscaled with the metric R = ρD², σ = σ₀/E², so the
proxes never see a scaled argument. Source: Stellato et al., *OSQP*, Math. Prog. Comp. 12 (2020), section 5.1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from opteq_cvx.splitting.groups import Rows, mean_of, shared

LOW, HIGH = 1e-4, 1e4


def equilibrate(p: Tensor, k: Tensor, groups: Sequence[Rows], rounds: int = 10) -> tuple[Tensor, Tensor]:
    """(D (1|B, m), E (1|B, n)): row and column scales; rows of one group share their scale."""
    rows = max(p.shape[0], k.shape[0])
    p_abs, k_abs = p.abs().expand(rows, -1, -1), k.abs().expand(rows, -1, -1)
    d, e = k.new_ones(rows, k.shape[1]), k.new_ones(rows, k.shape[2])
    for _ in range(rounds):
        scaled_k = d[:, :, None] * k_abs * e[:, None, :]
        scaled_p = e[:, :, None] * p_abs * e[:, None, :]
        row = amax(scaled_k, 2)
        column = torch.maximum(amax(scaled_k, 1), amax(scaled_p, 1))
        d = (d / safe_sqrt(row)).clamp(LOW, HIGH)
        d = shared(d.log(), groups, mean_of).exp() if groups else d
        e = (e / safe_sqrt(column)).clamp(LOW, HIGH)
    return d, e


def curvature(p: Tensor, e: Tensor) -> Tensor:
    """The mean over columns of the largest entry of EPE (1|B,)."""
    return amax(e[:, :, None] * p.abs() * e[:, None, :], 1).mean(dim=1)


def amax(x: Tensor, dim: int) -> Tensor:
    """The largest along an axis, 0 where that is empty."""
    if x.shape[dim] == 0:
        return x.sum(dim=dim)
    return x.amax(dim=dim)


def safe_sqrt(x: Tensor) -> Tensor:
    """√x, 1 for rows of almost nothing, which keep their scale."""
    return torch.where(x > LOW, x, torch.ones_like(x)).sqrt()


def bounded(size: Tensor) -> Tensor:
    """A size to scale by: within [LOW, HIGH], 1 where it is 0."""
    return torch.where(size > 0, size, torch.ones_like(size)).clamp(LOW, HIGH)
