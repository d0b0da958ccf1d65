"""Trend filtering with learned strengths: y* = argmin ½‖y − x‖² + λ‖D²y‖₁ + ½ρ‖y‖², D² the second difference.

The signal nearest to x whose slope changes rarely; knots appear where the data ask for them.

Weights: λ ≥ 0, ρ ≥ 0. Input: x (length). Output: y (length).
"""

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "S.-J. Kim, K. Koh, S. Boyd, D. Gorinevsky, ℓ1 Trend Filtering, SIAM Review 2009"


def declare(*, length: int = 40) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output y."""
    x = oc.Input(length, name="x")
    lam, rho = oc.Weight(name="lam", nonneg=True, init=0.5), oc.Weight(name="rho", nonneg=True, init=0.01)
    y = cp.Variable(length, name="y")
    objective = 0.5 * cp.sum_squares(y - x) + lam * cp.norm1(cp.diff(y, k=2)) + 0.5 * rho * cp.sum_squares(y)
    return cp.Problem(cp.Minimize(objective)), [x], [y]


def sample(n: int, generator: torch.Generator, *, length: int = 40) -> tuple[Tensor]:
    """Random walks x (n, length)."""
    return (torch.randn(n, length, generator=generator, dtype=torch.float64).cumsum(dim=1),)
