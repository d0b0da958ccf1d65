"""Sparse inverse covariance: Θ* = argmin tr(SΘ) − ln det Θ + λ‖Θ‖₁ + ½ρ‖Θ‖², S = (x xᵀ + D) with a learned D.

The graphical LASSO on one sample with a learned positive definite prior covariance: its zeros are conditional
independences.

Weights: D (size, size) positive semidefinite, λ ≥ 0. Input: x (size). Output: Θ (size, size).
"""

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "J. Friedman, T. Hastie, R. Tibshirani, Sparse Inverse Covariance Estimation with the Graphical LASSO, 2008"
RIDGE = 0.1


def declare(*, size: int = 6) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output Θ."""
    x = oc.Input(size, name="x")
    D = oc.Weight((size, size), name="D", PSD=True, init=np.eye(size))
    lam = oc.Weight(name="lam", nonneg=True, init=0.1)
    theta = cp.Variable((size, size), name="theta", symmetric=True)
    S = cp.outer(x, x) + D
    penalty = lam * cp.norm1(theta) + 0.5 * RIDGE * cp.sum_squares(theta)
    return cp.Problem(cp.Minimize(cp.trace(S @ theta) - cp.log_det(theta) + penalty)), [x], [theta]


def sample(n: int, generator: torch.Generator, *, size: int = 6) -> tuple[Tensor]:
    """Standard normal x (n, size)."""
    return (torch.randn(n, size, generator=generator, dtype=torch.float64),)
