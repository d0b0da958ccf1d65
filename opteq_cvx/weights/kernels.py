"""Certified bounds on the norm of the convolution with a kernel (O, I, *taps): for every image size and stride, for
padding with zeros and circular, and for kernels whose rows are in groups.

All such maps are compressions of the convolution on the infinite grid, whose norm is the supremum over frequencies ω of
‖K̂(ω)‖₂ with the symbol K̂(ω) = Σ_t K[:, :, t] e^(−i⟨ω, t⟩), (O, I). Groups are blocks of rows: each has a smaller norm.

Source: Sedghi, Gupta, Long, arXiv 1805.10408 (symbols); Delattre et al., arXiv 2305.16173 (Gram iteration of them);
Ehlich, Zeller, Math. Z. 86 (1964) (trigonometric polynomials between the points of a grid).
"""

import math

import torch
from torch import Tensor

from opteq_cvx.ir.frozen import Shape

OVERSAMPLING = 4
"""Grid points for each tap: the supremum is at most 1.08 times the maximum on them for each axis (1.04 for 3 taps)."""
SIDE = 8
"""At least this many grid points along each axis."""
GRAM_STEPS = 5
"""Squarings; the bound is at most (2·points·min(O, I))^(1/2⁷) times the largest norm on the grid."""


def bound(K: Tensor) -> Tensor:
    """(2 Σ_ω ‖(K̂ᴴK̂)^(2^k)‖_F²)^(1/2^(k+2)) / Π cos(π(h − 1)/(2N)), the sum over half the grid: never below the norm.

    Homogeneous, smooth where K ≠ 0, and 0 (with gradient 0) at K = 0. At most 1.16 times the norm for kernels of 3 × 3
    taps and 100 channels. Magnitudes are kept in log space. A matrix is a kernel without taps.
    """
    zero = (K == 0).all()
    safe = torch.where(zero, 1.0, K)
    peak = safe.detach().abs().amax()
    S = symbol(safe / peak)
    G = S.mH @ S if S.shape[-2] >= S.shape[-1] else S @ S.mH
    log = torch.zeros_like(peak)
    for _ in range(GRAM_STEPS):
        size = _frobenius(G.detach())
        G = G / size
        G, log = G @ G, 2.0 * (log + size.log())
    power = 2.0 ** (GRAM_STEPS + 1)
    total = math.sqrt(2.0) * _frobenius(G)
    found = peak * torch.exp((log + total.log()) / power) * _between(K.shape[2:]) * _rounding(K)
    return torch.where(zero, 0.0, found)


def _frobenius(G: Tensor) -> Tensor:
    """‖G‖_F of all of it; by real and imaginary parts, ten times as fast as torch's norm of complex numbers."""
    size: Tensor = torch.linalg.vector_norm(torch.view_as_real(G) if G.is_complex() else G)
    return size


def least(K: Tensor) -> Tensor:
    """max_ω ‖K̂(ω)‖₂ over the grid: the norm is at least that, on images large enough."""
    largest: Tensor = torch.linalg.matrix_norm(symbol(K), ord=2).max()
    return largest


def symbol(K: Tensor) -> Tensor:
    """K̂ (points, O, I) at half the frequencies of a grid; at the others it is the complex conjugate."""
    axes = tuple(range(2, K.ndim))
    values = torch.fft.rfftn(K, s=grid(K.shape[2:]), dim=axes) if axes else K[..., None]
    return values.flatten(2).permute(2, 0, 1)


def grid(taps: Shape) -> tuple[int, ...]:
    """Points along each axis."""
    return tuple(max(SIDE, OVERSAMPLING * h) if h > 1 else 1 for h in taps)


def _between(taps: Shape) -> float:
    """By what factor the supremum may exceed the grid's maximum: uᴴK̂v has degree (h − 1)/2 in each variable."""
    return 1.0 / math.prod(math.cos(math.pi * (h - 1) / 2 / n) for h, n in zip(taps, grid(taps), strict=True))


def _rounding(K: Tensor) -> float:
    """A factor that covers the rounding of the transform, the sums, and the squares.

    fl(G²) is off by n eps |G||G|, which is at most n² eps ‖G‖₂² in norm, n = min(O, I); the k-th square counts for 2⁻ᵏ.
    """
    sums, square = 16.0 * max(K.shape[0], K.shape[1] * math.prod(K.shape[2:])), min(K.shape[:2]) ** 2
    return 1.0 + (sums + square) * torch.finfo(K.dtype).eps
