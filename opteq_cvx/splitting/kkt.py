"""Optimality systems [[P, Kᵀ], [K, −S]] (x, y) = (g, r), S ≥ 0 diagonal, solved to rounding however S is scaled.

Rows of K with one entry are eliminated, which changes only the diagonal of P; what is left is factored with a
regularization of its diagonal, by LU with pivoting, since eliminating all rows would square the condition number, and
refined against the system with so small a one that it only keeps multipliers of redundant rows from running away: a
step of the proximal method of multipliers, whose fixed points it does not move.
Sources: Vanderbei, *Symmetric quasidefinite matrices*, SIAM J. Optim. 5 (1995); Altman & Gondzio, *Regularized
symmetric indefinite systems in interior point methods*, Optim. Methods Softw. 11 (1999); Pougkakiotis & Gondzio, *An
interior point–proximal method of multipliers for convex quadratic programming*, Comput. Optim. Appl. 78 (2021).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.splitting.sizes import top
from opteq_cvx.splitting.system import matmul

REFINEMENTS = 8


def proximal(dtype: torch.dtype) -> float:
    """What is added to the diagonals of P and S in the system that is solved."""
    return float(torch.finfo(dtype).eps ** (2 / 3))


@dataclass(frozen=True, slots=True)
class Optimality:
    """P (1|B, n, n), K (1|B, m, n), and which rows of K take part (B, m): the y of others is 0."""

    p: Tensor
    k: Tensor
    active: Tensor
    single: Tensor
    several: Tensor

    @staticmethod
    def of(p: Tensor, k: Tensor, active: Tensor) -> "Optimality":
        """Rows of K that have one entry, or none, in every sample are told from the others."""
        several = ((k != 0).sum(dim=2) > 1).any(dim=0)
        return Optimality(p, k, active, (~several).nonzero().squeeze(1), several.nonzero().squeeze(1))

    @property
    def size(self) -> int:
        """The order of the matrix that is factored."""
        return self.p.shape[1] + int(self.several.numel())

    def factor(self, s: Tensor) -> "Factored":
        """The factored system for S as s (B, m)."""
        delta = torch.finfo(s.dtype).eps ** 0.5
        weight = torch.where(self.active, 1.0 / (s + delta), 0.0)
        one, n, batch = self.k[:, self.single], self.p.shape[1], s.shape[0]
        rows = torch.where(self.active[:, self.several, None], self.k[:, self.several], 0.0)
        diagonal = delta + (weight[:, self.single, None] * one.square()).sum(dim=1)
        matrix = s.new_zeros(batch, self.size, self.size)
        matrix[:, :n, :n] = self.p + torch.diag_embed(diagonal)
        matrix[:, n:, :n], matrix[:, :n, n:] = rows, rows.mT
        matrix.diagonal(dim1=1, dim2=2)[:, n:] = -torch.where(self.active, s + delta, 1.0)[:, self.several]
        scale = matrix.abs().amax(dim=2).rsqrt()
        factors, pivots, _ = torch.linalg.lu_factor_ex(scale[:, :, None] * matrix * scale[:, None, :])
        return Factored(self, s, weight, scale, factors, pivots)


@dataclass(frozen=True, slots=True)
class Factored:
    """One factorization: s and the weights 1/(s + δ) of rows (B, m), the scales of the factored matrix and its LU."""

    system: Optimality
    s: Tensor
    weight: Tensor
    scale: Tensor
    factors: Tensor
    pivots: Tensor

    def solve(self, g: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """(x, y) for g (B, n), r (B, m), refined as long as that helps, sample by sample."""
        r = torch.where(self.system.active, r, 0.0)
        x, y = self._regularized(g, r)
        size = torch.maximum(top(g), top(r / (1.0 + self.s))).clamp_min(torch.finfo(g.dtype).tiny)
        best, done = torch.full_like(size, torch.inf), (x, y)
        for _ in range(REFINEMENTS):
            first, second = self._residual(g, r, x, y)
            error = torch.maximum(top(first), top(second / (1.0 + self.s))) / size
            better = error < best
            done = (torch.where(better[:, None], x, done[0]), torch.where(better[:, None], y, done[1]))
            best = torch.where(better, error, best)
            if not bool((better & (error > torch.finfo(g.dtype).eps)).any()):
                break
            dx, dy = self._regularized(first, second)
            x, y = x + dx, y + dy
        return done

    def _residual(self, g: Tensor, r: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        p, k, small = self.system.p, self.system.k, proximal(g.dtype)
        second = r - matmul(x, k.mT) + (self.s + small) * y
        return g - matmul(x, p) - small * x - matmul(y, k), torch.where(self.system.active, second, 0.0)

    def _regularized(self, g: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        system, n = self.system, g.shape[1]
        one, w, own = system.k[:, system.single], self.weight[:, system.single], r[:, system.single]
        right = self.scale * torch.cat([g + matmul(w * own, one), r[:, system.several]], dim=1)
        found = self.scale * torch.linalg.lu_solve(self.factors, self.pivots, right.unsqueeze(2)).squeeze(2)
        x, y = found[:, :n], torch.zeros_like(r)
        y[:, system.several] = found[:, n:]
        y[:, system.single] = w * (matmul(x, one.mT) - own)
        return x, torch.where(system.active, y, 0.0)
