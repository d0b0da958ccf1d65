"""A deep convolutional OptEq: (u, v)* = argmin_{u, v ≥ 0} ½‖u‖² + ½‖v‖² − ⟨Aᵀu, Bᵀv⟩ − ⟨c, u⟩ − ⟨d, v⟩.

The equilibrium of z = Bᵀ relu(B Aᵀ relu(A z + c) + d): two unit layers in a cycle, A a convolution that keeps the
image's size and B one of stride 2, each followed by its own transpose; c = V ∗ x + a and d = V' ∗ x + b inject the data
at both resolutions. Two layers have an objective, jointly convex and with one minimizer because ‖A‖₂‖B‖₂ ≤ 0.95² by
construction. It is declared as ½‖Aᵀu − Bᵀv‖² + ½⟨u, (I − A Aᵀ)u⟩ + ½⟨v, (I − B Bᵀ)v⟩ − …: convolutions only, no matrix.

Weights: A, B (channels, channels, 3, 3), V_u, V_v (channels, inputs, 5, 5), b_u, b_v (channels, 1, 1). Input: x
(inputs, pixels, pixels). Outputs: u (channels, side, side), side = ⌈pixels / 2⌉, v (channels, half, half),
half = ⌈side / 2⌉.
"""

import cvxpy as cp
import scipy.sparse as sp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "X. Xie et al., Optimization Induced Equilibrium Networks, arXiv 2105.13228; two layers are one convex program"
TAPS, REACH = 3, 5


def declare(
    *, inputs: int = 1, pixels: int = 28, channels: int = 16
) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its outputs u and v."""
    side = (pixels - 1) // 2 + 1
    x = oc.Input((inputs, pixels, pixels), name="x")
    states: list[cp.Expression] = []
    carried: list[cp.Expression] = []
    cost: cp.Expression = cp.Constant(0.0)
    for kernel, name, stride in (("A", "u", 1), ("B", "v", 2)):
        size = (side - 1) // stride + 1
        u = cp.Variable((channels, size, size), nonneg=True, name=name)
        K = oc.Weight((channels, channels, TAPS, TAPS), name=kernel, norm=0.95)
        V = oc.Weight((channels, inputs, REACH, REACH), name=f"V_{name}")
        b = oc.Weight((channels, 1, 1), name=f"b_{name}", init=0.0)
        injection = oc.conv2d(x, V, stride=2 * stride, padding=REACH // 2) + b
        A = oc.conv2d_matrix(K, (channels, side, side), stride=stride, padding=TAPS // 2)
        rest = cp.psd_wrap(sp.eye_array(u.size, format="csr") - A @ A.T)
        cost = cost + 0.5 * cp.quad_form(cp.vec(u, order="C"), rest) - cp.sum(cp.multiply(injection, u))
        left = (side - 1) % stride
        carried.append(oc.conv_transpose2d(u, K, stride=stride, padding=TAPS // 2, output_padding=left))
        states.append(u)
    return cp.Problem(cp.Minimize(cost + 0.5 * cp.sum_squares(carried[0] - carried[1]))), [x], states


def sample(
    n: int, generator: torch.Generator, *, inputs: int = 1, pixels: int = 28, channels: int = 16
) -> tuple[Tensor]:
    """Standard normal x (n, inputs, pixels, pixels)."""
    return (torch.randn(n, inputs, pixels, pixels, generator=generator, dtype=torch.float64),)
