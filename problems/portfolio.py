"""A long-only portfolio: w* = argmin ½γ wᵀ(FFᵀ + diag(d²))w − μᵀw + κ‖w − w₀‖₁ over w ≥ 0, 1ᵀw = 1.

Markowitz's trade-off with a factor model of the covariance and proportional trading costs: the layer maps predicted
returns to holdings, and its risk model and cost are learned from the outcome of the trades.

Weights: F (assets, factors), d > 0 (assets), κ ≥ 0. Inputs: μ (assets), the expected returns, and w₀ (assets), the
holdings before the trade. Output: w (assets).
"""

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "S. Boyd et al., Multi-Period Trading via Convex Optimization, Foundations and Trends 2017, section 4"
AVERSION = 5.0


def declare(*, assets: int = 20, factors: int = 4) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its inputs μ and w₀, and its output w."""
    mu, before = oc.Input(assets, name="mu"), oc.Input(assets, name="before")
    F = oc.Weight((assets, factors), name="F")
    d = oc.Weight(assets, name="d", pos=True, init=0.3 * np.ones(assets))
    cost = oc.Weight(name="cost", nonneg=True, init=0.01)
    w = cp.Variable(assets, name="w")
    risk = cp.sum_squares(F.T @ w) + cp.sum_squares(cp.multiply(d, w))
    objective = 0.5 * AVERSION * risk - mu @ w + cost * cp.norm1(w - before)
    return cp.Problem(cp.Minimize(objective), [w >= 0, cp.sum(w) == 1]), [mu, before], [w]


def sample(n: int, generator: torch.Generator, *, assets: int = 20, factors: int = 4) -> tuple[Tensor, Tensor]:
    """Normal returns μ and random holdings w₀, each (n, assets)."""
    mu = 0.1 * torch.randn(n, assets, generator=generator, dtype=torch.float64)
    before = torch.rand(n, assets, generator=generator, dtype=torch.float64)
    return mu, before / before.sum(dim=1, keepdim=True)
