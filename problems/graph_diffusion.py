"""Nonlinear diffusion on a ring, U = argmin_{V ≥ 0} ½‖V‖² − ⟨G(Z + X Bᵀ)Wᵀ, V⟩ with Z = −GᵀU W tied to the solution.

G is the ring's gradient (edges × nodes): U holds the flow over each edge, and Z = −Kᵀ relu(K(Z + X Bᵀ)), K = G ⊗ W, is
the state of the nodes after the flows have come to rest. I + KKᵀ is positive definite for every W, so the ties are
variational: the joint program is strongly convex without any bound on the norm.

Weights: W (flows, states), B (states, features). Input: X (nodes, features). Output: Z (nodes, states).
"""

from collections.abc import Sequence

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "Q. Chen et al., Optimization-induced graph implicit nonlinear diffusion, ICML 2022, arXiv 2206.14418"


def gradient(nodes: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """G with ‖G‖ ≤ √2: differences along the edges of a ring, over √2."""
    ring = np.eye(nodes, k=1) + np.eye(nodes, k=1 - nodes) - np.eye(nodes)
    return np.asarray(ring / np.sqrt(2.0), dtype=np.float64)


def declare(
    *, nodes: int = 10, features: int = 6, states: int = 4, flows: int = 5
) -> tuple[oc.Tied, list[cp.Parameter], Sequence[cp.Expression]]:
    """The tied program, its input X and its output Z."""
    X = oc.Input((nodes, features), name="X")
    W, B = oc.Weight((flows, states), name="W"), oc.Weight((states, features), name="B")
    G = gradient(nodes)
    Z, U = cp.Parameter((nodes, states), name="Z"), cp.Variable((nodes, flows), nonneg=True, name="U")
    pull = G @ (Z + X @ B.T) @ W.T
    program = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(U) - cp.sum(cp.multiply(pull, U))))
    state = -(G.T @ U @ W)
    return oc.tied(program, {Z: state}, [state]), [X], [state]


def sample(
    n: int, generator: torch.Generator, *, nodes: int = 10, features: int = 6, states: int = 4, flows: int = 5
) -> tuple[Tensor]:
    """Standard normal X (n, nodes, features)."""
    return (torch.randn(n, nodes, features, generator=generator, dtype=torch.float64),)
