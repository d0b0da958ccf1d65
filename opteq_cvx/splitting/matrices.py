"""P and K of a program in graph form, as Newton steps and certificates use them: products, sizes, one linear solve."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.splitting.jacobians import Jacobians
from opteq_cvx.splitting.sizes import top
from opteq_cvx.splitting.system import matmul


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The products of a drift (dx, dy) with K and P, and the sizes they are compared with.

    q (1|B, n), b (1|B, m), kx = K dx (B, m), ky = Kᵀdy (B, n), px = P dx (B, n); bounds on the norms of K's rows
    (1|B, m), and the largest entries of K and P (1|B,).
    """

    q: Tensor
    b: Tensor
    kx: Tensor
    ky: Tensor
    px: Tensor
    row_size: Tensor
    k_size: Tensor
    p_size: Tensor


@runtime_checkable
class Matrices(Protocol):
    """P (n, n) and K (m, n), shared by the batch or one for each sample."""

    def curved(self, x: Tensor) -> Tensor:
        """Px (B, n)."""

    def image(self, x: Tensor) -> Tensor:
        """Kx (B, m)."""

    def back(self, y: Tensor) -> Tensor:
        """Kᵀy (B, n)."""

    def magnitudes(self) -> "Matrices":
        """The same with |K|, entry by entry."""

    def tallest(self) -> Tensor:
        """The largest entry of each row of |K| (1|B, m)."""

    def newton(self, sigma: Tensor, r: Tensor, d: Jacobians, gradient: Tensor) -> Tensor:
        """(P + σ + KᵀR(I − D)K)⁻¹ g (B, n), for σ (1|B, n), R as r (1|B, m), g (B, n)."""

    def moved(self, q: Tensor, b: Tensor, dx: Tensor, dy: Tensor) -> Moved:
        """The products of a drift with K and P."""


@dataclass(frozen=True, slots=True)
class Dense(Matrices):
    """P (1|B, n, n) and K (1|B, m, n) as matrices."""

    p: Tensor
    k: Tensor

    @override
    def curved(self, x: Tensor) -> Tensor:
        return matmul(x, self.p)

    @override
    def image(self, x: Tensor) -> Tensor:
        return matmul(x, self.k.mT)

    @override
    def back(self, y: Tensor) -> Tensor:
        return matmul(y, self.k)

    @override
    def magnitudes(self) -> "Dense":
        return Dense(self.p, self.k.abs())

    @override
    def tallest(self) -> Tensor:
        return self.k.abs().amax(dim=2) if self.k.shape[2] else self.k.new_zeros(self.k.shape[:2])

    @override
    def newton(self, sigma: Tensor, r: Tensor, d: Jacobians, gradient: Tensor) -> Tensor:
        least = self.p + torch.diag_embed(sigma.expand(gradient.shape[0], -1))
        h = least + self.curvature(r, d)
        diagonal = h.diagonal(dim1=1, dim2=2)  # where g is nearly flat, rounding of 1 − D may take away all of σ
        diagonal.copy_(torch.maximum(diagonal, least.diagonal(dim1=1, dim2=2)))
        return solve(h, gradient)

    def curvature(self, r: Tensor, d: Jacobians) -> Tensor:
        """KᵀR(I − D)K (B, n, n)."""
        k, diagonal = self.k, 1.0 - d.diagonal
        total = diagonal.new_zeros(diagonal.shape[0], k.shape[2], k.shape[2])
        for group in d.coupled:
            rows, shape = group.order.reshape(-1), group.order.shape
            middle = torch.eye(shape[1], dtype=k.dtype, device=k.device) - group.jacobian
            part = k[:, rows].reshape(k.shape[0], *shape, k.shape[2])
            weighted = (r[:, rows].reshape(r.shape[0], *shape, 1) * (middle @ part)).flatten(1, 2)
            total = total + part.flatten(1, 2).mT @ weighted
            diagonal = diagonal.index_fill(1, rows, 0.0)
        return total + k.mT @ ((r * diagonal)[:, :, None] * k)

    @override
    def moved(self, q: Tensor, b: Tensor, dx: Tensor, dy: Tensor) -> Moved:
        return Moved(
            q=q,
            b=b,
            kx=self.image(dx),
            ky=self.back(dy),
            px=self.curved(dx),
            row_size=torch.linalg.vector_norm(self.k, dim=2),
            k_size=top(self.k.flatten(1)),
            p_size=top(self.p.flatten(1)),
        )


def solve(h: Tensor, right: Tensor) -> Tensor:
    """H⁻¹ right (B, n), by Cholesky after scaling to unit diagonal."""
    scale = h.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(h.dtype).tiny).rsqrt()
    scaled = scale[:, :, None] * h * scale[:, None, :]
    scaled.diagonal(dim1=1, dim2=2).add_(10 * torch.finfo(h.dtype).eps)
    factor, info = torch.linalg.cholesky_ex(scaled)
    solved = scale * torch.cholesky_solve((scale * right)[:, :, None], factor).squeeze(2)
    return torch.where(((info == 0) & torch.isfinite(solved).all(1))[:, None], solved, scale * scale * right)
