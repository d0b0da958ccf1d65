"""A game of three players: u_k = argmin ½‖u‖² − (U_k x + b_k − Σ_{j≠k} A_kj u_j)ᵀu over 0 ≤ u ≤ 1, Σ u ≤ budget.

Each player spends a budget on actions, pulled by the data and pushed by what the others do. The influences A_kj are
learned and not symmetric: no common objective exists. ‖A_kj‖₂ ≤ 0.45 makes the Nash equilibrium unique, and the best
responses in turn converge to it.

Weights: A_kj (actions, actions), U_k (actions, inputs), b_k (actions). Input: x (inputs). Outputs: u_1, u_2, u_3.
"""

from collections.abc import Sequence

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "J. B. Rosen, Existence and uniqueness of equilibrium points for concave n-person games, Econometrica 33, 1965"
PLAYERS = 3
SHARE = 0.4  # of the actions that a budget covers


def declare(*, inputs: int = 12, actions: int = 8) -> tuple[oc.Tied, list[cp.Parameter], Sequence[cp.Expression]]:
    """The game, its input x and the players' actions."""
    x = oc.Input(inputs, name="x")
    u = [cp.Variable(actions, name=f"u{k}") for k in range(1, PLAYERS + 1)]
    pressure = [cp.Parameter(actions, name=f"p{k}") for k in range(1, PLAYERS + 1)]
    programs, ties = [], {}
    for k in range(PLAYERS):
        U = oc.Weight((actions, inputs), name=f"U{k + 1}")
        b = oc.Weight(actions, name=f"b{k + 1}", init=0.5)
        others = [j for j in range(PLAYERS) if j != k]
        A = {j: oc.Weight((actions, actions), name=f"A{k + 1}{j + 1}", norm=0.45) for j in others}
        ties[pressure[k]] = A[others[0]] @ u[others[0]] + A[others[1]] @ u[others[1]]
        cost = 0.5 * cp.sum_squares(u[k]) - (U @ x + b - pressure[k]) @ u[k]
        limits = [u[k] >= 0, u[k] <= 1, cp.sum(u[k]) <= SHARE * actions]
        programs.append(cp.Problem(cp.Minimize(cost), limits))
    return oc.tied(programs, ties), [x], u


def sample(n: int, generator: torch.Generator, *, inputs: int = 12, actions: int = 8) -> tuple[Tensor]:
    """Standard normal x (n, inputs)."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
