"""Attention to stored patterns at rest: p = argmin_{p ∈ simplex} Σ pᵢ ln pᵢ − (W z + U x)ᵀp with z = Wᵀp tied to it.

z* = Wᵀ softmax(W z* + U x): the rows of W are the patterns, z* is what the query U x retrieves. Softmax has the
Lipschitz constant ½, so that ‖W‖₂² ≤ 2 suffices for one convex program, min E(z) = ½‖z‖² − lse(W z + U x).

Weights: W (patterns, width) with ‖W‖₂ ≤ 1.3, U (patterns, inputs). Input: x (inputs). Output: z (width).
"""

from collections.abc import Sequence

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "H. Ramsauer et al., Hopfield networks is all you need, arXiv 2008.02217"


def declare(
    *, inputs: int = 32, patterns: int = 24, width: int = 16
) -> tuple[oc.Tied, list[cp.Parameter], Sequence[cp.Expression]]:
    """The tied program, its input x and its output z."""
    x = oc.Input(inputs, name="x")
    W, U = oc.Weight((patterns, width), name="W", norm=1.3), oc.Weight((patterns, inputs), name="U")
    memory = oc.unit(W, U @ x, "softmax", name="p")
    return memory, [x], memory.outputs


def sample(
    n: int, generator: torch.Generator, *, inputs: int = 32, patterns: int = 24, width: int = 16
) -> tuple[Tensor]:
    """Standard normal x (n, inputs)."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
