"""Ball: ‖W‖₂ < ρ for every free matrix, and the same for symmetric positive semidefinite weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Shape
from opteq_cvx.maps.peek import hidden, transformed
from opteq_cvx.weights.bounds import certified
from opteq_cvx.weights.part import Part, margin, symmetrized
from opteq_cvx.weights.semidefinite import ZERO, clip_eigenvalues, factor, lift

MODERATE = 1e3
"""Up to this Frobenius norm the Cholesky factorization is good to 1e6·eps, a thousandth of the bound's margin."""
RETREAT = 1e-3
"""Relative distance from the bound at which a projected value lands; nearer, the gradient would be dead."""


def contraction(A: Tensor) -> Tensor:
    """A(I + AᵀA)^(-1/2) up to a rotation: W = AL⁻ᵀ with LLᵀ = I + AᵀA, so ‖W‖₂ < 1. A bijection.

    By Cholesky for moderate A, where its error of cond(I + AᵀA)·eps stays far below the margin of the bound; else as
    the lower block of Q in [I; A] = QR (R = Lᵀ), orthonormal however large A is but several times dearer (and the
    choice inside function transforms, which cannot look at A). The smaller side is factored. O(mn·min(m, n)).

    Source: WᵀW = I − (I + AᵀA)⁻¹ up to a rotation, since LLᵀ = I + AᵀA.
    """
    wide = A.shape[-2] < A.shape[-1]
    tall = A.mT if wide else A
    if _moderate(A):
        small = by_cholesky(tall)[0] if transformed() else with_own_derivative(tall)
        return small.mT if wide else small
    k = tall.shape[-1]
    Q, R = torch.linalg.qr(torch.cat([torch.eye(k, dtype=A.dtype, device=A.device), tall], dim=-2))
    sign = torch.where(R.detach().diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(A.dtype)
    W: Tensor = Q[..., k:, :] * sign[..., None, :]
    return W.mT if wide else W


def by_cholesky(A: Tensor) -> tuple[Tensor, Tensor]:
    """W = AL⁻ᵀ and L, with LLᵀ = I + AᵀA; A (..., m, k) with m ≥ k."""
    gram = A.mT @ A
    gram.diagonal(dim1=-2, dim2=-1).add_(1.0)
    L = torch.linalg.cholesky(gram)
    return torch.linalg.solve_triangular(L.mT, A, upper=True, left=False), L


class Contraction(torch.autograd.Function):
    """`by_cholesky` with a first derivative of two products and one triangular solve.

    Ā = (G − WΨ)L⁻¹, Ψ = Φ(GᵀW) + Φ(GᵀW)ᵀ, Φ the lower triangle with half its diagonal. Second derivatives, forward mode
    and transforms go through the operations themselves.
    Source: dW = dA L⁻ᵀ − W dLᵀ L⁻ᵀ with the derivative of the Cholesky factor, Murray, arXiv 1602.07527, section 3.
    """

    @override
    @staticmethod
    def forward(ctx: Any, A: Tensor) -> Tensor:
        W, L = by_cholesky(A)
        ctx.save_for_backward(A, W.detach(), L)
        return W

    @override
    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        A, W, L = ctx.saved_tensors
        (G,) = cotangents
        if torch.is_grad_enabled():
            return torch.autograd.grad(by_cholesky(A)[0], A, G, create_graph=True)[0]
        lower = torch.tril(G.mT @ W)
        lower.diagonal().mul_(0.5)
        return torch.linalg.solve_triangular(L, G - W @ (lower + lower.mT), upper=False, left=False)


with_own_derivative: Callable[[Tensor], Tensor] = Contraction.apply


def _moderate(A: Tensor) -> bool:
    """Whether A may be looked at, and ‖A‖ is small enough for a Cholesky factorization of I + AᵀA."""
    return not hidden(A) and A.device.type != "meta" and bool(torch.linalg.matrix_norm(A.detach()) <= MODERATE)


def contraction_inverse(W: Tensor) -> Tensor:
    """A with contraction(A) = W, for ‖W‖₂ < 1: A = WM⁻ᵀ with MMᵀ = I − WᵀW."""
    wide = W.shape[-2] < W.shape[-1]
    tall = W.mT if wide else W
    eye = torch.eye(tall.shape[-1], dtype=W.dtype, device=W.device)
    M = torch.linalg.cholesky(eye - tall.mT @ tall)
    A: Tensor = torch.linalg.solve_triangular(M.mT, tall, upper=True, left=False)
    return A.mT if wide else A


class Ball(Part):
    """W = ρ'·contraction(A) for matrices, ρ' a rounding margin below ρ (see `margin`), so ‖W‖₂ < ρ in every dtype."""

    def __init__(self, radius: float, shape: Shape) -> None:
        super().__init__()
        self.radius = radius
        self.rank = min(shape)

    @override
    def forward(self, raw: Tensor) -> Tensor:
        return (self._radius(raw.dtype) * contraction(raw.double())).to(raw.dtype)

    @override
    def right_inverse(self, value: Tensor) -> Tensor:
        return contraction_inverse(value / self._radius(value.dtype))

    @override
    def project(self, value: Tensor) -> Tensor:
        return self._clip(value, self.radius)

    @override
    def inside(self, value: Tensor) -> Tensor:
        return self._clip(value, self._radius(value.dtype) * (1 - 1e-9))

    def _clip(self, value: Tensor, limit: float) -> Tensor:
        if float(certified(value)) <= limit:
            return value
        U, s, Vh = torch.linalg.svd(value, full_matrices=False)
        if float(s.max()) <= limit:
            return value
        clipped: Tensor = (U * s.clamp(max=self.radius * (1 - RETREAT))) @ Vh
        return clipped

    def _radius(self, dtype: torch.dtype) -> float:
        return float(self.radius * (1 - margin(dtype, self.rank)))


class SemidefiniteBall(Part):
    """S = sign · ρ'·CCᵀ with C = contraction(A), A square: 0 ⪯ ±S and ‖S‖₂ < ρ.

    Source: Lezcano-Casado, *Trivializations*, arXiv 1909.09501.
    """

    def __init__(self, radius: float, *, sign: int) -> None:
        super().__init__()
        self.radius = radius
        self.sign = sign

    @override
    def forward(self, raw: Tensor) -> Tensor:
        C = contraction(raw.double())
        S = self.sign * self._radius(raw.dtype, raw.shape[-1]) * symmetrized(C @ C.mT)
        return S.to(raw.dtype)

    @override
    def right_inverse(self, value: Tensor) -> Tensor:
        return contraction_inverse(factor(self.sign * value / self._radius(value.dtype, value.shape[-1])))

    @override
    def project(self, value: Tensor) -> Tensor:
        return self._clip(value, self.radius)

    @override
    def inside(self, value: Tensor) -> Tensor:
        limit = self._radius(value.dtype, value.shape[-1]) * (1 - 1e-9)
        return self.sign * lift(self.sign * self._clip(value, limit), zero=ZERO * self.radius)

    @override
    def polish(self, value: Tensor) -> Tensor:
        return self.sign * clip_eigenvalues(self.sign * value)

    def _clip(self, value: Tensor, limit: float) -> Tensor:
        S = clip_eigenvalues(self.sign * value)
        if float(certified(S)) <= limit or float(torch.linalg.eigvalsh(S).max()) <= limit:
            return self.sign * S
        return self.sign * clip_eigenvalues(S, self.radius * (1 - RETREAT))

    def _radius(self, dtype: torch.dtype, rank: int) -> float:
        return self.radius * (1 - margin(dtype, rank))
