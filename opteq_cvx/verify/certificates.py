"""Certificates that need no solver: how far a point is from the minimizer, by its own gradient.

For F(u) = ½uᵀPu − cᵀu + f(u) with P ⪰ μI and a step s: u⁺ = prox_{sf}(u − s(Pu − c)) has the subgradient
g = (u − u⁺)/s − P(u − u⁺) ∈ ∂F(u⁺), hence ‖u⁺ − u*‖ ≤ ‖g‖/μ and F(u⁺) − F* ≤ ‖g‖²/(2μ).
Source: reference theory, section 4.3 (row u⁺).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from opteq_cvx.ir.frozen import Array

Prox = Callable[[Array, float], Array]
"""prox(v, s) = argmin_x s f(x) + ½‖x − v‖²."""


@dataclass(frozen=True, slots=True)
class DistanceBound:
    """A point with certified bounds on its distance to the minimizer and its excess objective (inf if μ =
    0)."""

    point: Array
    gradient: Array
    modulus: float
    distance: float
    objective: float


def distance_bound(P: Array, c: Array, prox: Prox, u: Array) -> DistanceBound:
    """Certify the forward-backward image u⁺ of u for ½uᵀPu − cᵀu + f(u), P symmetric (n, n).

    The modulus is λ_min(P) by a dense eigendecomposition, lowered by its rounding error; a negative one
    certifies nothing. Cost: O(n³) and one prox.
    """
    values = np.linalg.eigvalsh(P)
    largest = max(float(np.abs(values).max(initial=0.0)), np.finfo(np.float64).tiny)
    modulus = float(values[0]) - P.shape[0] * np.finfo(np.float64).eps * largest
    step = 1.0 / largest
    point = prox(u - step * (P @ u - c), step)
    gradient = (u - point) / step - P @ (u - point)
    norm = float(np.linalg.norm(gradient))
    if modulus <= 0.0:
        return DistanceBound(point, gradient, max(modulus, 0.0), np.inf, np.inf)
    return DistanceBound(point, gradient, modulus, norm / modulus, norm**2 / (2.0 * modulus))


def fenchel_gap(value: float, conjugate: float, u: Array, y: Array) -> float:
    """f(u) + f*(y) − ⟨u, y⟩ ≥ 0, and 0 exactly where y ∈ ∂f(u); rounding below zero is cut off.

    With y = c − Pu it bounds ‖u − u*‖²_P (reference theory, section 4.3, row v = u).
    """
    return max(value + conjugate - float(np.sum(u * y)), 0.0)
