"""Polish an interior-point solution to rounding: Newton steps on the optimality conditions of its active set.

Clarabel's iterate keeps s_i z_i ≈ μ, so beside a kink, where both s_i and z_i are small, it is off by √μ
(1e-5 at a tolerance of 1e-10). The conditions Px + q + Aᵀz = 0, Ax + s = b with complementary (s, z) written
in charts (`cones`) are a square, piecewise smooth system; a few semismooth Newton steps solve it to rounding.
Source: L. Qi, J. Sun, "A nonsmooth version of Newton's method", Math. Programming 58, 1993.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from scipy.sparse.csgraph import structural_rank

from opteq_cvx.ir.frozen import Array
from opteq_cvx.verify.cones import Chart, charts

STEPS = 12
"""Newton steps: quadratically convergent from an interior-point solution, or useless."""

DENSE_LIMIT = 1200
"""Up to this many unknowns a singular system is solved by dense least squares; above it the polish stops."""

ROUNDING = 4e-16
"""A relative residual that no further step can better."""

LONGEST = 1e-2
"""A step longer than this, relative to the point, is no correction but the mark of a nearly singular
system."""


@dataclass(frozen=True, slots=True)
class ConicData:
    """minimize ½xᵀPx + qᵀx subject to Ax + s = b, s ∈ K, as Clarabel receives it; P symmetric, `dims`
    CVXPY's."""

    P: sp.csc_array
    q: Array
    A: sp.csc_array
    b: Array
    dims: Any


@dataclass(frozen=True, slots=True)
class ConicPoint:
    """A primal-dual point of a conic problem and the largest violation of its optimality conditions,
    relative."""

    x: Array
    s: Array
    z: Array
    residual: float


def residual(data: ConicData, x: Array, s: Array, z: Array) -> float:
    """max |Px + q + Aᵀz|, |Ax + s − b| relative to the data's and the point's scale, and the relative gap
    |⟨s, z⟩|."""
    dual = data.P @ x + data.q + data.A.T @ z
    primal = data.A @ x + s - data.b
    scale = 1.0 + max((float(np.abs(v).max(initial=0.0)) for v in (data.q, data.b, x, z)), default=0.0)
    worst = max(float(np.abs(v).max(initial=0.0)) for v in (dual, primal))
    return max(worst, abs(float(s @ z)) / scale) / scale


def polish(data: ConicData, point: ConicPoint) -> ConicPoint:
    """The best point that Newton steps from `point` reach; `point` itself where they do not improve it."""
    blocks = charts(data.dims, point.s, point.z)
    if blocks is None:
        return point
    bounds = np.cumsum([0, *(block.size for block in blocks)])
    rows = [slice(int(lo), int(hi)) for lo, hi in pairwise(bounds)]
    x = point.x
    w = np.concatenate([block.start(point.s[r], point.z[r]) for block, r in zip(blocks, rows, strict=True)] or [x[:0]])
    best = point
    for _ in range(STEPS):
        s, z = _pairs(blocks, rows, w)
        value = residual(data, x, s, z)
        if not np.isfinite(value):
            break
        if value < best.residual:
            best = ConicPoint(x, s, z, value)
        if value <= ROUNDING:
            break
        step = _newton(data, blocks, rows, x, w, s, z)
        if step is None or not np.isfinite(step).all():
            break
        x, w = x + step[: x.size], w + step[x.size :]
        if float(np.abs(step).max(initial=0.0)) <= 1e-15 * (1.0 + float(np.abs(x).max(initial=0.0))):
            break
    return best if _inside(blocks, rows, best) else point


def _pairs(blocks: list[Chart], rows: list[slice], w: Array) -> tuple[Array, Array]:
    pairs = [block.pair(w[r]) for block, r in zip(blocks, rows, strict=True)]
    if not pairs:
        return w, w
    return np.concatenate([s for s, _ in pairs]), np.concatenate([z for _, z in pairs])


def _newton(
    data: ConicData, blocks: list[Chart], rows: list[slice], x: Array, w: Array, s: Array, z: Array
) -> Array | None:
    """One Newton step for (x, w), of least norm where the system is singular."""
    slopes = [block.jacobian(w[r]) for block, r in zip(blocks, rows, strict=True)]
    ds = sp.block_diag([a for a, _ in slopes], format="csc") if slopes else sp.csc_array((0, 0))
    dz = sp.block_diag([b for _, b in slopes], format="csc") if slopes else sp.csc_array((0, 0))
    system = sp.block_array([[data.P, data.A.T @ dz], [data.A, ds]], format="csc")
    right = -np.concatenate([data.P @ x + data.q + data.A.T @ z, data.A @ x + s - data.b])
    return _solve(system, right, 1.0 + float(np.abs(x).max(initial=0.0)) + float(np.abs(w).max(initial=0.0)))


def _solve(system: sp.csc_array, right: Array, size: float) -> Array | None:
    """The solution by sparse LU where that is sound, else, for small systems, of least norm; None if
    neither.

    SuperLU writes outside of its memory where a matrix is singular by its pattern and stores zeros (SciPy 1.17), which
    ends the process.
    """
    system.eliminate_zeros()
    step = _by_factors(system, right) if structural_rank(system) == system.shape[0] else None
    if step is not None:
        error = float(np.abs(system @ step - right).max(initial=0.0))
        sound = error <= 1e-9 * float(np.abs(right).max(initial=0.0))
        if sound and float(np.abs(step).max(initial=0.0)) <= LONGEST * size:
            return step
    if system.shape[0] > DENSE_LIMIT:
        return None
    try:
        # by QR with pivoting: as safe as by singular values where the rank is deficient, and three times as fast
        step = la.lstsq(system.toarray(), right, cond=1e-12, overwrite_a=True, lapack_driver="gelsy")[0]
        return np.asarray(step)
    except (np.linalg.LinAlgError, ValueError):  # ValueError: not finite
        return None


def _by_factors(system: sp.csc_array, right: Array) -> Array | None:
    try:
        return np.asarray(spla.splu(system).solve(right))
    except RuntimeError:  # exactly singular
        return None


def _inside(blocks: list[Chart], rows: list[slice], point: ConicPoint) -> bool:
    """Whether the multipliers of the boundary charts kept their sign (the other charts are in their cones by
    construction)."""
    for block, r in zip(blocks, rows, strict=True):
        start = block.start(point.s[r], point.z[r])
        s, z = block.pair(start)
        scale = 1.0 + float(np.abs(start).max())
        if max(np.abs(s - point.s[r]).max(), np.abs(z - point.z[r]).max()) > 1e-9 * scale:
            return False
    return True
