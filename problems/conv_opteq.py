"""A convolutional OptEq layer: u* = argmin_{u ≥ 0} ½⟨u, (I − A Aᵀ)u⟩ − ⟨V ∗ x + b, u⟩, A the convolution with K.

The optimality condition is u = relu(A Aᵀ u + V ∗ x + b): with z = Aᵀu, the equilibrium of z = Aᵀ relu(A z + V ∗ x + b),
a residual block without end whose skip connection is its own transpose. Unique because ‖A‖₂ ≤ 0.95 by construction;
the network runs convolutions, no matrix is formed.

Weights: K (channels, channels, 3, 3), V (channels, inputs, 5, 5), b (channels, 1, 1). Input: x (inputs,
pixels, pixels). Output: u (channels, side, side), side = ⌈pixels / stride⌉.
"""

import cvxpy as cp
import scipy.sparse as sp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "X. Xie et al., Optimization Induced Equilibrium Networks, arXiv 2105.13228, section 5"
TAPS, STRIDE, REACH = 3, 2, 5


def declare(
    *, inputs: int = 1, pixels: int = 28, channels: int = 24
) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output u."""
    side = (pixels - 1) // STRIDE + 1
    n = channels * side * side
    x = oc.Input((inputs, pixels, pixels), name="x")
    K = oc.Weight((channels, channels, TAPS, TAPS), name="K", norm=0.95)
    V = oc.Weight((channels, inputs, REACH, REACH), name="V")
    b = oc.Weight((channels, 1, 1), name="b", init=0.0)
    u = cp.Variable((channels, side, side), nonneg=True, name="u")
    A = oc.conv2d_matrix(K, (channels, side, side), padding="same")
    injection = oc.conv2d(x, V, stride=STRIDE, padding=REACH // 2) + b
    curved = cp.quad_form(cp.vec(u, order="C"), cp.psd_wrap(sp.eye_array(n, format="csr") - A @ A.T))
    return cp.Problem(cp.Minimize(0.5 * curved - cp.sum(cp.multiply(injection, u)))), [x], [u]


def sample(
    n: int, generator: torch.Generator, *, inputs: int = 1, pixels: int = 28, channels: int = 24
) -> tuple[Tensor]:
    """Standard normal x (n, inputs, pixels, pixels)."""
    return (torch.randn(n, inputs, pixels, pixels, generator=generator, dtype=torch.float64),)
