"""Certified upper bounds on the spectral norm: numbers that are never below ‖W‖₂.

All take (*batch, m, n) and return (*batch); all are differentiable. Power iteration is not here: it
approaches the norm from below. Kernels of convolutions have theirs in `kernels`.

Source: Delattre et al., arXiv 2305.16173 (Gram iteration); the others are textbook.
"""

import torch
from jaxtyping import Float
from torch import Tensor

GRAM_STEPS = 8
"""Squarings in `gram`: the bound is at most n^(1/2¹⁰) times the norm, 1.0045 for n = 100."""


def exact(W: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch"]:
    """σ_max by SVD, enlarged by its rounding error. O(mn·min(m, n)); twice differentiable where simple."""
    slack = 1.0 + 4.0 * max(W.shape[-2:]) * torch.finfo(W.dtype).eps
    top: Tensor = torch.linalg.matrix_norm(W, ord=2)
    return top * slack


def frobenius(W: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch"]:
    """‖W‖_F, at most √min(m, n) times the norm. O(mn)."""
    peak = W.detach().abs().amax(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(W.dtype).tiny)
    # Scaled, because squares of small entries underflow.
    total: Tensor = torch.linalg.matrix_norm(W / peak, ord="fro")
    return total * peak[..., 0, 0] * _rounding(W)


def holder(W: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch"]:
    """√(‖W‖₁‖W‖_∞), at most (mn)^(1/4) times the norm. O(mn)."""
    one: Tensor = torch.linalg.matrix_norm(W, ord=1)
    inf: Tensor = torch.linalg.matrix_norm(W, ord=float("inf"))
    return one.sqrt() * inf.sqrt() * _rounding(W)


def gram(W: Float[Tensor, "*batch m n"], steps: int = GRAM_STEPS) -> Float[Tensor, "*batch"]:
    """‖(WᵀW)^(2^k)‖_F^(1/2^(k+1)) with k = `steps` squarings of the smaller side; smooth where W ≠ 0.

    At most min(m, n)^(1/2^(k+2)) times the norm; 0 (with gradient 0) at W = 0. Magnitudes are kept in
    log space.

    Source: Delattre et al., arXiv 2305.16173, algorithm 1.
    """
    zero = (W == 0).all(dim=-1, keepdim=True).all(dim=-2, keepdim=True)
    safe = torch.where(zero, 1.0, W)
    peak = safe.detach().abs().amax(dim=(-2, -1), keepdim=True)
    A = safe / peak
    G = A.mT @ A if W.shape[-2] >= W.shape[-1] else A @ A.mT
    log = torch.zeros_like(peak)
    for _ in range(steps):
        size = torch.linalg.matrix_norm(G.detach(), keepdim=True)
        G = G / size
        G, log = G @ G, 2.0 * (log + size.log())
    power = 2.0 ** (steps + 1)
    bound = peak * torch.exp((log + torch.linalg.matrix_norm(G, keepdim=True).log()) / power) * _rounding(W)
    return torch.where(zero, 0.0, bound)[..., 0, 0]


def certified(W: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch"]:
    """The least of `gram`, `frobenius` and `holder`."""
    return torch.minimum(torch.minimum(frobenius(W), holder(W)), gram(W))


def _rounding(W: Tensor) -> float:
    """A factor that covers the rounding of the sums in a bound of W."""
    return 1.0 + 4.0 * max(W.shape[-2:]) * torch.finfo(W.dtype).eps
