"""A box-constrained quadratic program: z* = argmin_{−1 ≤ z ≤ 1} ½ zᵀP z + ½ε‖z‖² − (A x + c)ᵀz.

An actuator that follows a learned linear law and saturates: where the box is slack, (P + εI) z = A x + c.
P stays positive semidefinite by construction, and ε = 0.1 makes the solution unique.

Weights: P (actions, actions) ⪰ 0, A (actions, inputs), c (actions). Input: x (inputs). Output: z (actions).
"""

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "J. Nocedal, S. Wright, Numerical Optimization, 2nd ed., section 16.7"
RIDGE = 0.1


def declare(*, inputs: int = 64, actions: int = 40) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output z."""
    x = oc.Input(inputs, name="x")
    P = oc.Weight((actions, actions), name="P", PSD=True, init=np.eye(actions))
    A, c = oc.Weight((actions, inputs), name="A"), oc.Weight(actions, name="c")
    z = cp.Variable(actions, bounds=[-1.0, 1.0], name="z")
    cost = 0.5 * cp.quad_form(z, P) + 0.5 * RIDGE * cp.sum_squares(z) - (A @ x + c) @ z
    return cp.Problem(cp.Minimize(cost)), [x], [z]


def sample(n: int, generator: torch.Generator, *, inputs: int = 64, actions: int = 40) -> tuple[Tensor]:
    """Standard normal x (n, inputs)."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
