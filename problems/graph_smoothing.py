"""Few labels on a graph: y* = argmin ½‖m ∘ (y − x)‖² + ½λ Σ_(a,b) (y_a − y_b)² + ½ρ‖y‖², m the observed nodes.

Every third node of a ring with chords is observed; the smoothness prior carries what is seen there to the others.

Weights: λ ≥ 0, ρ ≥ 0. Input: x (nodes). Output: y (nodes).
"""

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "X. Zhu, Z. Ghahramani, J. Lafferty, Semi-supervised Learning Using Gaussian Fields, ICML 2003"
SEEN = 3


def declare(*, nodes: int = 30) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output y."""
    x = oc.Input(nodes, name="x")
    lam, rho = oc.Weight(name="lam", nonneg=True, init=1.0), oc.Weight(name="rho", nonneg=True, init=0.01)
    y = cp.Variable(nodes, name="y")
    ring = [(i, (i + 1) % nodes) for i in range(nodes)]
    chords = [(i, (i + nodes // 2) % nodes) for i in range(0, nodes // 2, 2)]
    mask = np.arange(nodes) % SEEN == 0
    fit = 0.5 * cp.sum_squares(cp.multiply(mask.astype(float), y - x))
    prior = lam * oc.priors.graph_smoothness(y, ring + chords) + rho * oc.priors.ridge(y)
    return cp.Problem(cp.Minimize(fit + prior)), [x], [y]


def sample(n: int, generator: torch.Generator, *, nodes: int = 30) -> tuple[Tensor]:
    """Standard normal x (n, nodes), of which the program sees every third entry."""
    return (torch.randn(n, nodes, generator=generator, dtype=torch.float64),)
