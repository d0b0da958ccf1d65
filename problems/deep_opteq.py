"""A deep OptEq, z_k = W_kᵀu_k with u_k = argmin_{u ≥ 0} ½‖u‖² − (W_k z_{k−1} + U_k x + b_k)ᵀu, three layers in a cycle.

z* = T_3(T_2(T_1(z*))) with T_k(z) = W_kᵀ relu(W_k z + U_k x + b_k), each a proximal map since ‖W_k‖₂ ≤ 0.95. With three
layers no objective exists: it is a monotone inclusion, unique because the product of the norms is below 1.

Weights: W_k (hidden, width), orthogonal at first, since other entries of that norm shrink what passes three of them;
b_k (hidden), k = 1, 2, 3, and U_k (hidden, inputs) in the first `injected` layers; the others do not see x.
Input: x (inputs). Output: z (width).
"""

from collections.abc import Sequence

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "X. Xie et al., Optimization Induced Equilibrium Networks, arXiv 2105.13228"
LAYERS = 3


def declare(
    *, inputs: int = 64, hidden: int = 60, width: int = 40, injected: int = LAYERS
) -> tuple[oc.Tied, list[cp.Parameter], Sequence[cp.Expression]]:
    """The cycle, its input x and its output z."""
    x = oc.Input(inputs, name="x")
    units = []
    for k in range(1, LAYERS + 1):
        W = oc.Weight((hidden, width), name=f"W{k}", norm=0.95, init=oc.orthogonal(0.9))
        b = oc.Weight(hidden, name=f"b{k}")
        seen = oc.Weight((hidden, inputs), name=f"U{k}") @ x if k <= injected else 0.0
        units.append(oc.unit(W, seen + b, "relu", name=f"u{k}"))
    deep = oc.cycle(units)
    return deep, [x], deep.outputs


def sample(
    n: int, generator: torch.Generator, *, inputs: int = 64, hidden: int = 60, width: int = 40, injected: int = LAYERS
) -> tuple[Tensor]:
    """Standard normal x (n, inputs)."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
