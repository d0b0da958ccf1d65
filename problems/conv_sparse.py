"""Convolutional sparse coding: u* = argmin_{u ≥ 0} ½‖x − Dᵀ ∗ u‖² + λ‖u‖₁ + ½ε‖u‖², Dᵀ ∗ u the transposed convolution.

The image is a sum of learned 5 × 5 atoms, one channel of u saying where each stands and how strong: the LASSO whose
dictionary is a convolution, with ε = 0.1 so that the code, and its gradient, is unique. Its network is that of LISTA
with tied convolutional weights, run to its end: a residual image, its correlation with the atoms, a threshold.

Weights: D (channels, inputs, 5, 5) with ‖D‖₂ ≤ 1 as a convolution, λ ≥ 0. Input: x (inputs, pixels, pixels).
Output: u (channels, pixels, pixels).
"""

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "H. Bristow, A. Eriksson, S. Lucey, Fast Convolutional Sparse Coding, CVPR 2013; codes nonnegative here"
TAPS, RIDGE = 5, 0.1


def declare(
    *, inputs: int = 1, pixels: int = 28, channels: int = 16
) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output u."""
    x = oc.Input((inputs, pixels, pixels), name="x")
    D = oc.Weight((channels, inputs, TAPS, TAPS), name="D", norm=1.0)
    lam = oc.Weight(name="lam", nonneg=True, init=0.05)
    u = cp.Variable((channels, pixels, pixels), nonneg=True, name="u")
    fit = 0.5 * cp.sum_squares(x - oc.conv_transpose2d(u, D, padding="same"))
    return cp.Problem(cp.Minimize(fit + lam * cp.sum(u) + 0.5 * RIDGE * cp.sum_squares(u))), [x], [u]


def sample(
    n: int, generator: torch.Generator, *, inputs: int = 1, pixels: int = 28, channels: int = 16
) -> tuple[Tensor]:
    """Standard normal x (n, inputs, pixels, pixels)."""
    return (torch.randn(n, inputs, pixels, pixels, generator=generator, dtype=torch.float64),)
