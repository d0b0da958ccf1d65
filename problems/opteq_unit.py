"""An OptEq unit: u* = argmin_{u ≥ 0} ½ uᵀ(I − W Wᵀ)u − (U x + b)ᵀu + λ‖u‖₁, the fixed point of a ReLU layer.

The optimality condition is u = relu(W Wᵀ u + U x + b − λ): with z = Wᵀu, the equilibrium of
z = Wᵀ relu(W z + U x + b − λ). It is unique because ‖W‖₂ ≤ 0.95 holds by construction.

Weights: W (hidden, hidden), U (hidden, inputs), b (hidden), λ ≥ 0. Input: x (inputs). Output: u (hidden).
"""

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "X. Xie et al., Optimization Induced Equilibrium Networks, arXiv 2105.13228"


def declare(*, inputs: int = 64, hidden: int = 100) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output u."""
    x = oc.Input(inputs, name="x")
    W = oc.Weight((hidden, hidden), name="W", norm=0.95)
    U, b = oc.Weight((hidden, inputs), name="U"), oc.Weight(hidden, name="b")
    lam = oc.Weight(name="lam", nonneg=True, init=0.01)
    u = cp.Variable(hidden, nonneg=True, name="u")
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(hidden) - W @ W.T)) - (U @ x + b) @ u
    return cp.Problem(cp.Minimize(energy + lam * cp.norm1(u))), [x], [u]


def sample(n: int, generator: torch.Generator, *, inputs: int = 64, hidden: int = 100) -> tuple[Tensor]:
    """Standard normal x (n, inputs)."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
