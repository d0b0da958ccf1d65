"""The nearest correlation matrix: X* = argmin ½‖X − A‖² over X ⪰ 0 with unit diagonal, A = sym(Σₖ xₖ Gₖ).

A learned linear map proposes a matrix; the layer returns the correlation matrix nearest to it.

Weights: G (features, size·size). Input: x (features). Output: X (size, size).
"""

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "N. Higham, Computing the Nearest Correlation Matrix, IMA Journal of Numerical Analysis 2002"


def declare(*, features: int = 5, size: int = 6) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output X."""
    x = oc.Input(features, name="x")
    G = oc.Weight((features, size * size), name="G")
    X = cp.Variable((size, size), name="X", PSD=True)
    A = cp.reshape(x @ G, (size, size), order="C")
    objective = 0.5 * cp.sum_squares(X - (A + A.T) / 2)
    return cp.Problem(cp.Minimize(objective), [cp.diag(X) == 1]), [x], [X]


def sample(n: int, generator: torch.Generator, *, features: int = 5, size: int = 6) -> tuple[Tensor]:
    """Standard normal x (n, features)."""
    return (torch.randn(n, features, generator=generator, dtype=torch.float64),)
