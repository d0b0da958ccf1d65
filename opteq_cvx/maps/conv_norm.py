"""Upper bounds on the norm of a convolution, for every image size and any padding with zeros.

A zero-padded convolution is a compression of the one on the infinite grid, whose norm is the supremum over
frequencies of the largest singular value of its symbol K̂(ω) (O × C). The maximum over the frequencies of a finite
grid alone is not an upper bound: not even on the image's own grid, which describes circular padding.

Source: Golub & Van Loan section 2.3; Sedghi, Gupta, Long, arXiv 1805.10408 (symbols); Pfister, Bresler, IEEE Trans.
Signal Processing 67 (2019), theorem 1 (a trigonometric polynomial between the points of a grid).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

OVERSAMPLING = 6
"""Grid points for each tap: the supremum is then at most 1.08 times the maximum on the grid, in 2-D."""
SIDE = 8
"""At least this many grid points along each axis."""
UP = 1.0 + 1e-12
"""Covers the rounding of the sums."""


def conv_norm(kernel: Tensor, stride: tuple[int, int] = (1, 1), groups: int = 1) -> Tensor:
    """An upper bound (b,) on ‖conv(K)‖₂ for kernels (b, O, C/groups, h, w); differentiable where it is smooth.

    The least of the grid bound, √taps·‖K as (O, C·taps)‖₂ and Σ_taps ‖K[:, :, i, j]‖₂, of the kernel whose polyphase
    components stand for the stride. +∞ for a kernel that is not finite.
    """
    finite = kernel.isfinite().flatten(1).all(dim=1)
    phases = polyphase(torch.where(finite[:, None, None, None, None], kernel, 0.0), stride)
    b, o = phases.shape[:2]
    blocks = phases.reshape(b * groups, o // groups, *phases.shape[2:])
    bound = torch.minimum(torch.minimum(grid_bound(blocks), patch_bound(blocks)), tap_bound(blocks))
    worst = bound.reshape(b, groups).amax(dim=1) * UP
    return torch.where(finite, worst, torch.inf)


def polyphase(kernel: Tensor, stride: tuple[int, int]) -> Tensor:
    """The kernel (b, O, C·s₁·s₂, ⌈h/s₁⌉, ⌈w/s₂⌉) of stride 1 on the s₁·s₂ subsampled images: the same map."""
    if stride == (1, 1):
        return kernel
    (s, t), (h, w) = stride, kernel.shape[-2:]
    padded = F.pad(kernel, (0, -w % t, 0, -h % s))
    b, o, c, height, width = padded.shape
    split = padded.reshape(b, o, c, height // s, s, width // t, t).permute(0, 1, 2, 4, 6, 3, 5)
    return split.reshape(b, o, c * s * t, height // s, width // t)


def grid_bound(kernel: Tensor) -> Tensor:
    """max_grid ‖K̂(ω)‖ / Π cos(π(k − 1)/(2N)) for kernels (b, O, C, h, w), N grid points an axis.

    For unit vectors p(ω) = u*K̂(ω)v is, up to a factor of modulus one, a trigonometric polynomial of degree
    d = (k − 1)/2 in each variable, so that |p| ≤ max_grid|p| / cos(πd/N) in each.
    Source: Ehlich, Zeller, Math. Z. 86 (1964), "Schwankung von Polynomen zwischen Gitterpunkten".
    """
    sides = [max(SIDE, OVERSAMPLING * k) if k > 1 else 1 for k in kernel.shape[-2:]]
    symbol = torch.fft.rfft2(kernel, s=sides)
    matrices = symbol.permute(0, 3, 4, 1, 2)
    small = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mH
    top = torch.linalg.eigvalsh(small @ small.mH)[..., -1].clamp_min(0.0).sqrt().amax(dim=(1, 2))
    factor = math.prod(math.cos(math.pi * (k - 1) / 2 / n) for k, n in zip(kernel.shape[-2:], sides, strict=True))
    bound: Tensor = top * (1.0 + 1e-9) / factor
    return bound


def patch_bound(kernel: Tensor) -> Tensor:
    """√(h·w)·min(‖K as (O, C·h·w)‖, ‖K as (C, O·h·w)‖): an entry of an image lies in at most h·w patches."""
    b, o, c, h, w = kernel.shape
    rows = torch.linalg.matrix_norm(kernel.reshape(b, o, c * h * w), ord=2)
    columns = torch.linalg.matrix_norm(kernel.transpose(1, 2).reshape(b, c, o * h * w), ord=2)
    least: Tensor = torch.minimum(rows, columns) * math.sqrt(h * w)
    return least * (1.0 + 1e-9)


def tap_bound(kernel: Tensor) -> Tensor:
    """Σ_taps ‖K[:, :, i, j]‖₂: a convolution is a sum of shifts, each a matrix on the channels."""
    total: Tensor = torch.linalg.matrix_norm(kernel.movedim((1, 2), (-2, -1)), ord=2).sum(dim=(1, 2))
    return total * (1.0 + 1e-9)
