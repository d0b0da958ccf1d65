"""H⁻¹ for H = A + τB, A = P + σ, B = KᵀRK, cheap for every τ when A and B are shared by the batch.

Shared: with LLᵀ = A + B and the eigenvectors U of L⁻¹BL⁻ᵀ (eigenvalues λ in [0, 1]), V = L⁻ᵀU gives
H⁻¹ = V diag(1/((1 − λ) + τλ)) Vᵀ, so the penalty of each sample adapts without a new factorization.
Per sample: V = L⁻ᵀ of H itself, λ = 0. Source: simultaneous diagonalization, Golub & Van Loan, section 8.7.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class System:
    """V (1|B, n, n) and λ (1|B, n)."""

    v: Tensor
    eigenvalues: Tensor

    def solve(self, right: Tensor, tau: Tensor) -> Tensor:
        """H⁻¹ right for right (B, n), τ (1|B, 1)."""
        return self.at(tau)(right)

    def at(self, tau: Tensor) -> Callable[[Tensor], Tensor]:
        """H⁻¹ for one τ (1|B, 1), to be applied often."""
        middle, back = 1.0 / ((1.0 - self.eigenvalues) + tau * self.eigenvalues), self.v.mT
        return lambda right: matmul(matmul(right, self.v) * middle, back)


def factorize(a: Tensor, b: Tensor) -> System:
    """Diagonalize A and B together where both are shared, else factor A + B sample by sample."""
    h = a + b
    lower, _ = torch.linalg.cholesky_ex(h)
    eye = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)
    inverse = torch.linalg.solve_triangular(lower, eye.expand_as(h), upper=False)
    if h.shape[0] > 1:
        return System(inverse.mT, h.new_zeros(1, h.shape[-1]))
    values, vectors = torch.linalg.eigh(inverse @ b @ inverse.mT)
    return System(inverse.mT @ vectors, values.clamp(0.0, 1.0))


def matmul(x: Tensor, a: Tensor) -> Tensor:
    """x A for x (1|B, i) and A (1|B, i, j): one product when A is shared."""
    return x @ a[0] if a.shape[0] == 1 else (x.unsqueeze(1) @ a).squeeze(1)
