"""A monotone equilibrium network, u = argmin_{v ≥ 0} ½‖v‖² − (z + U x + b)ᵀv with z = W u tied to the solution.

u* = relu(W u* + U x + b) with W = (1 − m)I − AᵀA + B − Bᵀ, so that I − W ⪰ mI for all A and B, m = 0.3: a unique
equilibrium by construction. The skew part B − Bᵀ makes it a monotone inclusion without an objective; with B = 0 it
would be a convex program.

Weights: A, B (hidden, hidden), U (hidden, inputs), b (hidden). Input: x (inputs). Output: u (hidden).
"""

from collections.abc import Sequence

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "E. Winston, J. Z. Kolter, Monotone operator equilibrium networks, arXiv 2006.08591"
MARGIN = 0.3


def declare(*, inputs: int = 64, hidden: int = 80) -> tuple[oc.Tied, list[cp.Parameter], Sequence[cp.Expression]]:
    """The tied program, its input x and its output u."""
    x = oc.Input(inputs, name="x")
    A, B = oc.Weight((hidden, hidden), name="A"), oc.Weight((hidden, hidden), name="B")
    U, b = oc.Weight((hidden, inputs), name="U"), oc.Weight(hidden, name="b")
    z, u = cp.Parameter(hidden, name="z"), cp.Variable(hidden, nonneg=True, name="u")
    program = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u) - (z + U @ x + b) @ u))
    W = (1.0 - MARGIN) * np.eye(hidden) - A.T @ A + B - B.T
    return oc.tied(program, {z: W @ u}), [x], [u]


def sample(n: int, generator: torch.Generator, *, inputs: int = 64, hidden: int = 80) -> tuple[Tensor]:
    """Standard normal x (n, inputs)."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
