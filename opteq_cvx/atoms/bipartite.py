"""The Laplacian of a bipartite graph with edge weights S (m, n): the curvature of problems with row and column sums.

M = [diag(S1), S; Sᵀ, diag(Sᵀ1)] acts on pairs of potentials (a, b). Its null space is spanned by (1, −1) on each
connected component. Rows are eliminated, columns scaled to diagonal 1, and that system is shifted: by u uᵀ for the
null vector that is always there, and by a little for the others.
Source: Merigot, Thibert, *Optimal transport: discretization and algorithms*, 2021, section 3 (Newton's method).
"""

import torch
from torch import Tensor


class Laplacian:
    """M for S (*batch, m, n) ≥ 0, factored; `damping` (*batch) is added to the scaled column system."""

    def __init__(self, s: Tensor, damping: Tensor | None = None) -> None:
        """Factor the Schur complement diag(Sᵀ1) − Sᵀ diag(S1)⁻¹ S."""
        self.s, self.rows, columns = s, s.sum(-1), s.sum(-2)
        self.columns = columns
        filled = columns > 0
        self.scale = torch.where(filled, columns, 1.0).rsqrt()
        self.inverse = torch.where(self.rows > 0, 1.0 / torch.where(self.rows > 0, self.rows, 1.0), 0.0)
        half = s * self.inverse.sqrt().unsqueeze(-1) * self.scale.unsqueeze(-2)
        u = columns.sqrt()
        u = u / u.square().sum(-1, keepdim=True).clamp_min(torch.finfo(s.dtype).tiny).sqrt()
        shift = torch.finfo(s.dtype).eps ** 0.5 if damping is None else damping.unsqueeze(-1)
        inner = torch.diag_embed(filled.to(s.dtype) + shift) - half.mT @ half + u.unsqueeze(-1) * u.unsqueeze(-2)
        self.factor = torch.linalg.cholesky_ex(inner).L

    def multiply(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """M (a, b)."""
        across, back = (self.s @ b.unsqueeze(-1)).squeeze(-1), (self.s.mT @ a.unsqueeze(-1)).squeeze(-1)
        return self.rows * a + across, self.columns * b + back

    def column_step(self, g: Tensor) -> Tensor:
        """b with M (a, b) = (0, g), damped."""
        scaled = (self.scale * g).unsqueeze(-1)
        return self.scale * torch.cholesky_solve(scaled, self.factor).squeeze(-1)

    def solve(self, ga: Tensor, gb: Tensor) -> tuple[Tensor, Tensor]:
        """The shortest (a, b) with M (a, b) = (ga, gb), for a right side in M's range; one step of refinement."""
        a, b = self._rough(ga, gb)
        ma, mb = self.multiply(a, b)
        da, db = self._rough(ga - ma, gb - mb)
        return _centered(a + da, b + db)

    def onto_range(self, ga: Tensor, gb: Tensor) -> tuple[Tensor, Tensor]:
        """A right side without its part in the null space."""
        a, b = self._rough(*_centered(ga, gb))
        da, db = self._rough(*self.multiply(a, b))
        return self.multiply(2.0 * a - da, 2.0 * b - db)

    def _rough(self, ga: Tensor, gb: Tensor) -> tuple[Tensor, Tensor]:
        b = self.column_step(gb - (self.s.mT @ (self.inverse * ga).unsqueeze(-1)).squeeze(-1))
        return self.inverse * (ga - (self.s @ b.unsqueeze(-1)).squeeze(-1)), b


def _centered(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(a, b) without its part along (1, −1): of marginals, those nearest with equal sums."""
    k = (a.sum(-1, keepdim=True) - b.sum(-1, keepdim=True)) / (a.shape[-1] + b.shape[-1])
    return a - k, b + k


consistent = _centered
