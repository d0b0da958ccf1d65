"""Non-crossing quantile bands: q* = argmin Σₖ ½‖qₖ − (Aₖx + bₖ)‖² over q₁ ≤ q₂ ≤ … (each a vector of outputs).

Learned quantiles of several targets at once, kept in order: predictions whose bands would cross are pooled.

Weights: A (levels·targets, inputs), b (levels·targets). Input: x (inputs). Output: q (levels, targets).
"""

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "V. Chernozhukov, I. Fernández-Val, A. Galichon, Quantile and Probability Curves Without Crossing, 2010"


def declare(
    *, inputs: int = 8, levels: int = 5, targets: int = 3
) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output q."""
    x = oc.Input(inputs, name="x")
    A, b = oc.Weight((levels * targets, inputs), name="A"), oc.Weight(levels * targets, name="b")
    q = cp.Variable((levels, targets), name="q")
    raw = cp.reshape(A @ x + b, (levels, targets), order="C")
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(q - raw)), [cp.diff(q, axis=0) >= 0]), [x], [q]


def sample(n: int, generator: torch.Generator, *, inputs: int = 8, levels: int = 5, targets: int = 3) -> tuple[Tensor]:
    """Standard normal x (n, inputs)."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
