"""Systems of D M restricted to the support of D and solved by Cholesky: batched, exact, whatever the conditioning.

Where a prox acts entry by entry, its derivative D is zero on all entries that sit at a kink: relu's zeros, those of a
soft threshold, active bounds. s = D (c + M s) is then a system in the others alone, and small.

Source: the reduced system of semismooth Newton methods, Li, Sun, Toh, *A highly efficient semismooth Newton augmented
Lagrangian method for solving LASSO problems* (2018), section 3.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MOST = 2e7  # entries of all reduced matrices that may be held at once


@dataclass(frozen=True, slots=True)
class Reduced:
    """The factor of I − S M S on the support of D = S², sample by sample.

    index (B, k): the support, filled up with other entries; root (B, k): S there, 0 on what was filled up;
    factor (B, k, k): Cholesky's; fine (B,): whether it exists.
    """

    index: Tensor
    root: Tensor
    factor: Tensor
    fine: Tensor

    def solve(self, c: Tensor) -> Tensor:
        """s = D (c + M s), (B, n) → (B, n); zero where there is no factor."""
        right = c.gather(1, self.index).mul_(self.root)
        y = torch.cholesky_solve(right.unsqueeze(2), self.factor).squeeze(2)
        y = torch.where(self.fine[:, None], y.mul_(self.root), 0.0)
        return torch.zeros_like(c).scatter_(1, self.index, y)


def width(d: Tensor) -> int:
    """k, the largest support of a row of D (B, n)."""
    return int(torch.count_nonzero(d > 0, dim=1).max()) if d.numel() else 0


def reduce(m: Tensor, d: Tensor, k: int) -> Reduced:
    """Factor for M (1|B, n, n), symmetric, D (B, n) ≥ 0 with supports of at most k ≥ 1 entries. O(B k³)."""
    root, index = torch.topk(d.clamp_min(0.0), k, dim=1, sorted=False)
    root = root.sqrt_()
    if m.shape[0] == 1:
        inner = m[0][index[:, :, None], index[:, None, :]]
    else:
        inner = m[torch.arange(m.shape[0], device=m.device)[:, None, None], index[:, :, None], index[:, None, :]]
    system = inner.mul_(root[:, :, None]).mul_(-root[:, None, :])
    system.diagonal(dim1=1, dim2=2).add_(1.0)
    factor, info = torch.linalg.cholesky_ex(system)
    return Reduced(index, root, factor, info == 0)


def steps_worth(k: int, n: int, shared: bool) -> float:
    """What one factorization costs, in steps with M: measured on one core, where small factors run at 1 Gflop/s and
    products at 25 with one M for all, at the pace of the memory with one M per sample."""
    step = 2.0 * n**2 / 2.5e10 if shared else 8.0 * n**2 / 5e9
    return (k**3 / 3e9 + 3e-8 * k**2) / step if n else 0.0
