"""Two resolutions in one equilibrium: u = argmin_{u ≥ 0} Σ_b [½‖u_b‖² − c_bᵀu_b] − ½uᵀS u, a fine and a coarse branch.

S_bb = W_bW_bᵀ couples a branch to itself, S_fc = DᵀV the branches to each other, D the averaging of neighbors: its
exact adjoint carries the coarse branch up. The ties are symmetric, hence variational, and block Gershgorin certifies
λ_max(S) ≤ 0.6 + 0.4 ‖D‖ < 1.

Weights: W_f, W_c with ‖W‖₂ ≤ √0.6, V (coarse, coarse) with ‖V‖₂ ≤ 0.4, U_b, b_b. Input: x (inputs). Outputs: u_f, u_c.
"""

from collections.abc import Sequence

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "M. Li, Y. Wang, X. Xie, Z. Lin, Optimization inspired multi-branch equilibrium models, ICLR 2022"


def pooling(fine: int, coarse: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """D (coarse, fine): the mean of two neighbors, the last one alone where the number is odd."""
    rows = np.minimum(np.arange(fine) // 2, coarse - 1)
    D = (rows == np.arange(coarse)[:, None]).astype(np.float64)
    return np.asarray(D / D.sum(axis=1, keepdims=True), dtype=np.float64)


def declare(
    *, inputs: int = 64, fine: int = 60, width: int = 40
) -> tuple[oc.Tied, list[cp.Parameter], Sequence[cp.Expression]]:
    """The coupled branches, their input x and their outputs."""
    x = oc.Input(inputs, name="x")
    coarse = fine // 2
    units = []
    for name, size in (("f", fine), ("c", coarse)):
        W = oc.Weight((size, width), name=f"W_{name}", norm=float(np.sqrt(0.6)))
        U, b = oc.Weight((size, inputs), name=f"U_{name}"), oc.Weight(size, name=f"b_{name}")
        units.append(oc.unit(W, U @ x + b, "relu", name=f"u_{name}"))
    V = oc.Weight((coarse, coarse), name="V", norm=0.4)
    both = oc.branches(units, {(0, 1): pooling(fine, coarse).T @ V})
    return both, [x], both.outputs


def sample(n: int, generator: torch.Generator, *, inputs: int = 64, fine: int = 60, width: int = 40) -> tuple[Tensor]:
    """Standard normal x (n, inputs)."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
