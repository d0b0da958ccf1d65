"""Sparse coding with a learned dictionary: z* = argmin_z ½‖x − D z‖² + λ‖z‖₁ + ½ε‖z‖².

The LASSO, with ε = 0.1 so that the code is unique, and with it the gradient, when D has more columns than
rows. Its network is the iterated soft threshold of LISTA with tied weights, run to its end.

Weights: D (inputs, codes) with ‖D‖₂ ≤ 1, λ ≥ 0. Input: x (inputs). Output: z (codes).
"""

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "K. Gregor, Y. LeCun, Learning Fast Approximations of Sparse Coding, ICML 2010"
RIDGE = 0.1


def declare(*, inputs: int = 64, codes: int = 128) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output z."""
    x = oc.Input(inputs, name="x")
    D = oc.Weight((inputs, codes), name="D", norm=1.0)
    lam = oc.Weight(name="lam", nonneg=True, init=0.05)
    z = cp.Variable(codes, name="z")
    fit = 0.5 * cp.sum_squares(x - D @ z) + 0.5 * RIDGE * cp.sum_squares(z)
    return cp.Problem(cp.Minimize(fit + lam * cp.norm1(z))), [x], [z]


def sample(n: int, generator: torch.Generator, *, inputs: int = 64, codes: int = 128) -> tuple[Tensor]:
    """Standard normal x (n, inputs)."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
