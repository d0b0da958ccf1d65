"""A classifier's head with exact zeros: p = argmin_{p ≥ 0, Σp = 1} ½‖p − (W x + b)‖², the projection onto the simplex.

Like softmax a map of scores to probabilities, but classes far behind get probability 0. In closed form: no iteration.

Weights: W (classes, inputs), b (classes). Input: x (inputs). Output: p (classes).
"""

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "A. Martins, R. Astudillo, From softmax to sparsemax, ICML 2016, arXiv 1602.02068"


def declare(*, inputs: int = 64, classes: int = 10) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output p."""
    x = oc.Input(inputs, name="x")
    W, b = oc.Weight((classes, inputs), name="W"), oc.Weight(classes, name="b")
    p = cp.Variable(classes, name="p")
    cost = 0.5 * cp.sum_squares(p - (W @ x + b))
    return cp.Problem(cp.Minimize(cost), [p >= 0, cp.sum(p) == 1]), [x], [p]


def sample(n: int, generator: torch.Generator, *, inputs: int = 64, classes: int = 10) -> tuple[Tensor]:
    """Standard normal x (n, inputs)."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
