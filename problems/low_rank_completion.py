"""Matrix completion: Y* = argmin ½‖M ∘ (Y − X)‖² + λ‖Y‖_* + ½ε‖Y‖², M the observed entries, ε = 0.1.

Two of three entries are seen; the nuclear norm fills in the others by a matrix of low rank.

Weight: λ ≥ 0. Input: X (rows, columns). Output: Y (rows, columns).
"""

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "E. Candès, B. Recht, Exact Matrix Completion via Convex Optimization, Found. Comput. Math. 2009"
RIDGE = 0.1


def declare(*, rows: int = 12, columns: int = 10) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input X and its output Y."""
    X = oc.Input((rows, columns), name="X")
    lam = oc.Weight(name="lam", nonneg=True, init=0.3)
    Y = cp.Variable((rows, columns), name="Y")
    seen = ((np.arange(rows)[:, None] + 2 * np.arange(columns)) % 3 > 0).astype(float)
    fit = 0.5 * cp.sum_squares(cp.multiply(seen, Y - X)) + RIDGE * oc.priors.ridge(Y)
    return cp.Problem(cp.Minimize(fit + lam * oc.priors.low_rank(Y))), [X], [Y]


def sample(n: int, generator: torch.Generator, *, rows: int = 12, columns: int = 10) -> tuple[Tensor]:
    """Matrices of rank two and a little noise, X (n, rows, columns)."""
    left = torch.randn(n, rows, 2, generator=generator, dtype=torch.float64)
    right = torch.randn(n, 2, columns, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, rows, columns, generator=generator, dtype=torch.float64)
    return (left @ right + 0.1 * noise,)
