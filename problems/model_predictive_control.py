"""Model predictive control: (x, u)* = argmin Σₜ ‖Q xₜ₊₁‖² + ‖R uₜ‖² over xₜ₊₁ = A xₜ + B uₜ, |uₜ| ≤ ū.

The controller is the layer: it sees the state, plans a horizon and returns the first control. Its model of the plant
and its costs are learned.

Weights: A (states, states), B (states, controls), Q (states) > 0, R (controls) > 0. Input: x₀ (states).
Output: u₁ (controls).
"""

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "B. Amos et al., Differentiable MPC for End-to-end Planning and Control, NeurIPS 2018"
LIMIT = 0.5
HORIZON = 3


def declare(*, states: int = 4, controls: int = 2) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x₀ and its output, the first control."""
    start = oc.Input(states, name="start")
    A = oc.Weight((states, states), name="A", init=0.9 * np.eye(states) + 0.1 * np.eye(states, k=1))
    B = oc.Weight((states, controls), name="B", init=0.5 * np.eye(states, controls) + 0.1)
    Q = oc.Weight(states, name="Q", pos=True, init=np.ones(states))
    R = oc.Weight(controls, name="R", pos=True, init=np.ones(controls))
    x, u = cp.Variable((states, HORIZON), name="x"), cp.Variable((controls, HORIZON), name="u")
    steps = range(HORIZON)
    cost = sum(cp.sum_squares(cp.multiply(Q, x[:, t])) + cp.sum_squares(cp.multiply(R, u[:, t])) for t in steps)
    dynamics = [x[:, 0] == A @ start + B @ u[:, 0]]
    dynamics += [x[:, t + 1] == A @ x[:, t] + B @ u[:, t + 1] for t in range(HORIZON - 1)]
    return cp.Problem(cp.Minimize(cost), [*dynamics, cp.abs(u) <= LIMIT]), [start], [u[:, 0]]


def sample(n: int, generator: torch.Generator, *, states: int = 4, controls: int = 2) -> tuple[Tensor]:
    """Standard normal states x₀ (n, states)."""
    return (torch.randn(n, states, generator=generator, dtype=torch.float64),)
