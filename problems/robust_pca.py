"""Robust principal components: (L, S)* = argmin ½‖L + S − X‖² + α‖L‖_* + λ‖S‖₁ + ½ε(‖L‖² + ‖S‖²).

A matrix is split into a low-rank part and sparse outliers; both strengths are learned. The small ridge makes the split
unique.

Weights: α ≥ 0, λ ≥ 0. Input: X (rows, columns). Outputs: L and S (rows, columns).
"""

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "E. Candès, X. Li, Y. Ma, J. Wright, Robust Principal Component Analysis?, Journal of the ACM 2011"
RIDGE = 0.1


def declare(*, rows: int = 8, columns: int = 10) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input X and its outputs L and S."""
    X = oc.Input((rows, columns), name="X")
    alpha, lam = oc.Weight(name="alpha", nonneg=True, init=0.5), oc.Weight(name="lam", nonneg=True, init=0.2)
    L, S = cp.Variable((rows, columns), name="L"), cp.Variable((rows, columns), name="S")
    ridge = 0.5 * RIDGE * (cp.sum_squares(L) + cp.sum_squares(S))
    objective = 0.5 * cp.sum_squares(L + S - X) + alpha * cp.normNuc(L) + lam * cp.norm1(S) + ridge
    return cp.Problem(cp.Minimize(objective)), [X], [L, S]


def sample(n: int, generator: torch.Generator, *, rows: int = 8, columns: int = 10) -> tuple[Tensor]:
    """Rank-one matrices with a few large outliers, X (n, rows, columns)."""
    left = torch.randn(n, rows, 1, generator=generator, dtype=torch.float64)
    right = torch.randn(n, 1, columns, generator=generator, dtype=torch.float64)
    hit = torch.rand(n, rows, columns, generator=generator, dtype=torch.float64) < 0.1
    return (left @ right + 3.0 * hit * torch.randn(n, rows, columns, generator=generator, dtype=torch.float64),)
