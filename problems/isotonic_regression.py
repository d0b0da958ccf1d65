"""Isotonic calibration: p* = argmin ½ Σᵢ wᵢ (pᵢ − (Ax + b)ᵢ)² over p₁ ≤ p₂ ≤ … ≤ pₙ.

Learned scores, pooled to a monotone sequence: one pass of pool-adjacent-violators, whose derivative averages over
the pools.

Weights: A (outputs, inputs), b (outputs). Input: x (inputs). Output: p (outputs).
"""

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "R. Barlow, D. Bartholomew, J. Bremner, H. Brunk, Statistical Inference under Order Restrictions, 1972"


def declare(*, inputs: int = 16, outputs: int = 24) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output p."""
    x = oc.Input(inputs, name="x")
    A, b = oc.Weight((outputs, inputs), name="A"), oc.Weight(outputs, name="b")
    p = cp.Variable(outputs, name="p")
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(p - (A @ x + b))), [cp.diff(p) >= 0]), [x], [p]


def sample(n: int, generator: torch.Generator, *, inputs: int = 16, outputs: int = 24) -> tuple[Tensor]:
    """Standard normal x (n, inputs)."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
