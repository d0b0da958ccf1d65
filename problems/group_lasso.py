"""Group-sparse coding: z* = argmin ½‖x − D z‖² + λ Σ_g ‖z_g‖₂ + ½ε‖z‖², the groups g the rows of a matrix of codes.

Whole groups of codes vanish together: a feature is used with all its components or not at all. ε = 0.1.

Weights: D (inputs, 4·groups) with ‖D‖₂ ≤ 1, λ ≥ 0. Input: x (inputs). Output: Z (groups, 4).
"""

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "M. Yuan, Y. Lin, Model Selection and Estimation in Regression with Grouped Variables, JRSS B 2006"
WIDTH, RIDGE = 4, 0.1


def declare(*, inputs: int = 32, groups: int = 12) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output Z."""
    x = oc.Input(inputs, name="x")
    D = oc.Weight((inputs, WIDTH * groups), name="D", norm=1.0)
    lam = oc.Weight(name="lam", nonneg=True, init=0.1)
    Z = cp.Variable((groups, WIDTH), name="Z")
    fit = 0.5 * cp.sum_squares(x - D @ cp.vec(Z, order="C")) + RIDGE * oc.priors.ridge(Z)
    return cp.Problem(cp.Minimize(fit + lam * oc.priors.group_sparsity(Z))), [x], [Z]


def sample(n: int, generator: torch.Generator, *, inputs: int = 32, groups: int = 12) -> tuple[Tensor]:
    """Standard normal x (n, inputs)."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
