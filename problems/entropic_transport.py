"""Entropic optimal transport: P* = argmin ⟨C, P⟩ + ε Σ P ln P over P ≥ 0 with row sums r and column sums c.

Sinkhorn's problem as a layer: a learned cost matches two histograms. The last column's sum follows from the others and
is left out, so that the gradient in the histograms is defined.

Weights: C (rows, columns). Inputs: r (rows) and c (columns), positive with sum 1. Output: P (rows, columns).
"""

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "M. Cuturi, Sinkhorn Distances: Lightspeed Computation of Optimal Transport, NeurIPS 2013"
TEMPERATURE = 0.5


def declare(*, rows: int = 5, columns: int = 6) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its inputs r and c, and its output P."""
    r, c = oc.Input(rows, name="r"), oc.Input(columns, name="c")
    C = oc.Weight((rows, columns), name="C")
    P = cp.Variable((rows, columns), name="P")
    objective = cp.sum(cp.multiply(C, P)) - TEMPERATURE * cp.sum(cp.entr(P))
    sums = [cp.sum(P, axis=1) == r, cp.sum(P, axis=0)[:-1] == c[:-1]]
    return cp.Problem(cp.Minimize(objective), sums), [r, c], [P]


def sample(n: int, generator: torch.Generator, *, rows: int = 5, columns: int = 6) -> tuple[Tensor, Tensor]:
    """Random histograms r (n, rows) and c (n, columns)."""
    r = 0.5 + torch.rand(n, rows, generator=generator, dtype=torch.float64)
    c = 0.5 + torch.rand(n, columns, generator=generator, dtype=torch.float64)
    return r / r.sum(dim=1, keepdim=True), c / c.sum(dim=1, keepdim=True)
