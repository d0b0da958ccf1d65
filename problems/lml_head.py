"""A head for the k best labels: y = argmin −(W x + b)ᵀy − H(y) − H(1 − y) over Σ y = 3, H the entropy.

y_i = sigmoid(s_i + ν) with one ν that makes the sum 3: the probability that a label is among the three that count.

Weights: W (labels, inputs), b (labels). Input: x (inputs). Output: y (labels) in (0, 1).
"""

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "B. Amos, V. Koltun, J. Z. Kolter, The limited multi-label projection layer, arXiv 1906.08707"
CHOSEN = 3


def declare(*, inputs: int = 64, labels: int = 20) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output y."""
    x = oc.Input(inputs, name="x")
    W, b = oc.Weight((labels, inputs), name="W"), oc.Weight(labels, name="b")
    y = cp.Variable(labels, name="y")
    cost = -(W @ x + b) @ y - cp.sum(cp.entr(y)) - cp.sum(cp.entr(1 - y))
    return cp.Problem(cp.Minimize(cost), [cp.sum(y) == CHOSEN]), [x], [y]


def sample(n: int, generator: torch.Generator, *, inputs: int = 64, labels: int = 20) -> tuple[Tensor]:
    """Standard normal x (n, inputs)."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
