"""A support vector head: s* = argmin ½‖s − (Ax + b)‖² + C Σ max(0, 1 − yᵢ sᵢ), margins pushed by given signs y.

Learned scores meet a hinge for each label that is already known (multi-label completion): a known label with a large
margin leaves its score alone.

Weights: A (labels, inputs), b (labels), C ≥ 0. Inputs: x (inputs) and y (labels) in [−1, 1], 0 where unknown.
Output: s (labels).
"""

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "C. Cortes, V. Vapnik, Support-Vector Networks, Machine Learning 1995"


def declare(*, inputs: int = 12, labels: int = 8) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its inputs x and y, and its output s."""
    x, y = oc.Input(inputs, name="x"), oc.Input(labels, name="y")
    A, b = oc.Weight((labels, inputs), name="A"), oc.Weight(labels, name="b")
    C = oc.Weight(name="C", nonneg=True, init=0.5)
    s = cp.Variable(labels, name="s")
    objective = 0.5 * cp.sum_squares(s - (A @ x + b)) + C * cp.sum(cp.pos(1 - cp.multiply(y, s)))
    return cp.Problem(cp.Minimize(objective)), [x, y], [s]


def sample(n: int, generator: torch.Generator, *, inputs: int = 12, labels: int = 8) -> tuple[Tensor, Tensor]:
    """Standard normal x (n, inputs) and signs y (n, labels), a third of them unknown."""
    x = torch.randn(n, inputs, generator=generator, dtype=torch.float64)
    y = torch.randint(-1, 2, (n, labels), generator=generator).double()
    return x, y
