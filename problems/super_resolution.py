"""The smoothest fine signal: y* = argmin {½λ‖Dy‖² + ½‖y − r‖² : y ∈ argmin_{y ≥ 0} ½‖A y − x‖²}, A means of three.

Infinitely many fine signals have the coarse one as their means. The second objective selects among them: smooth, and
near a learned template r.

Weights: λ ≥ 0, r (3·coarse). Input: x (coarse). Output: y (3·coarse).
"""

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "S. Sabach, S. Shtern, A First Order Method for Solving Convex Bilevel Optimization Problems, SIOPT 2017"
FACTOR = 3


def declare(*, coarse: int = 10) -> tuple[oc.Selecting, list[cp.Parameter], list[cp.Expression]]:
    """The program with its second objective, its input x and its output y."""
    fine = FACTOR * coarse
    x = oc.Input(coarse, name="x")
    lam = oc.Weight(name="lam", nonneg=True, init=5.0)
    r = oc.Weight(fine, name="r", init=0.5 * np.ones(fine))
    y = cp.Variable(fine, nonneg=True, name="y")
    means = np.kron(np.eye(coarse), np.full((1, FACTOR), 1.0 / FACTOR))
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(means @ y - x)))
    return oc.Selecting(problem, cp.Minimize(lam * oc.priors.smoothness(y) + oc.priors.ridge(y, r))), [x], [y]


def sample(n: int, generator: torch.Generator, *, coarse: int = 10) -> tuple[Tensor]:
    """Positive random walks x (n, coarse)."""
    steps = 0.3 * torch.randn(n, coarse, generator=generator, dtype=torch.float64)
    return (steps.cumsum(dim=1).exp(),)
