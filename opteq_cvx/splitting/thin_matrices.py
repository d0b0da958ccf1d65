"""`Matrices` of programs in thin form: a Newton step by Woodbury costs O(nr²) for r dense rows, not O(n³)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.splitting.jacobians import Jacobians
from opteq_cvx.splitting.matrices import Dense, Matrices, Moved
from opteq_cvx.splitting.sizes import top
from opteq_cvx.splitting.thin_form import Inverse, Thin, woodbury

REFINEMENTS = 2  # Woodbury's formula is not backward stable


@dataclass(frozen=True, slots=True)
class ThinMatrices(Matrices):
    """P = D + Uᵀ diag(c) U and K of entries and rows."""

    thin: Thin

    @override
    def curved(self, x: Tensor) -> Tensor:
        return self.thin.curved(x)

    @override
    def image(self, x: Tensor) -> Tensor:
        return self.thin.image(x)

    @override
    def back(self, y: Tensor) -> Tensor:
        return self.thin.back(y)

    @override
    def magnitudes(self) -> "ThinMatrices":
        return ThinMatrices(replace(self.thin, s=self.thin.s.abs(), a=self.thin.a.abs()))

    @override
    def tallest(self) -> Tensor:
        a = self.thin.a
        rows = a.abs().amax(dim=2) if a.shape[2] else a.new_zeros(a.shape[:2])
        return self.thin.joined(self.thin.s.abs(), rows)

    @override
    def newton(self, sigma: Tensor, r: Tensor, d: Jacobians, gradient: Tensor) -> Tensor:
        """Where proxes couple rows, P and K are formed."""
        thin = self.thin
        if d.coupled:
            return Dense(*thin.dense()).newton(sigma, r, d, gradient)
        weight = r * (1.0 - d.diagonal)
        single, full = thin.split(weight)
        delta = thin.d + sigma + thin.scatter(single * thin.s.square())
        v, omega = thin.rows(), beside(thin.c.clamp_min(0.0), full)
        flat, m, sound = woodbury(delta, v, omega)
        inverse = Inverse(flat, v, m)
        x = inverse(gradient)
        for _ in range(REFINEMENTS):
            x = x + inverse(gradient - thin.curved(x) - sigma * x - thin.back(weight * thin.image(x)))
        return torch.where((sound & torch.isfinite(x).all(1))[:, None], x, flat * gradient)

    @override
    def moved(self, q: Tensor, b: Tensor, dx: Tensor, dy: Tensor) -> Moved:
        thin = self.thin
        norms: Tensor = torch.linalg.vector_norm(thin.a, dim=2)
        diagonal = thin.d + (thin.c[:, :, None] * thin.u.square()).sum(1)  # holds the largest entry of P
        return Moved(
            q=q,
            b=b,
            kx=self.image(dx),
            ky=self.back(dy),
            px=self.curved(dx),
            row_size=thin.joined(thin.s.abs(), norms),
            k_size=torch.maximum(top(thin.s), top(thin.a.flatten(1))),
            p_size=top(diagonal),
        )


def beside(c: Tensor, r: Tensor) -> Tensor:
    """Two groups of numbers (1|B, ·) as one."""
    rows = max(c.shape[0], r.shape[0])
    return torch.cat([c.expand(rows, -1), r.expand(rows, -1)], dim=1)
