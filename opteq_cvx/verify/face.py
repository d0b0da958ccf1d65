"""The whole solution set of an exact solve, for programs with more than one solution.

At a solution x*, s*, z* of minimize ½xᵀPx + qᵀx, Ax + s = b, s ∈ K, the solution set is
{x : Px = Px*, qᵀx = qᵀx*, b − Ax ∈ K ∩ z*^⊥}. K ∩ z*^⊥ is a face of K: rows with a positive multiplier become
equations, a second-order block with one a ray, a semidefinite block with one a smaller semidefinite block. No
tolerance on the objective is needed, so nothing is biased. Source: reference theory, section 9.2 (face form).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import scipy.linalg as la

from opteq_cvx.ir.frozen import Array, IntArray
from opteq_cvx.verify.answer import Conic
from opteq_cvx.verify.cones import Chart, Fixed, Nonneg, SecondOrder, Semidefinite, Zero, charts
from opteq_cvx.verify.cvx import add, matmul, reshape, sum_squares
from opteq_cvx.verify.exact import solve_exact
from opteq_cvx.verify.values import dense

LIMIT = 2000
"""Largest conic problem (columns) whose null space is computed."""

ACTIVE = 1e-8
"""A multiplier above ACTIVE times the largest one holds its row; polished multipliers are exact to 1e-14."""

NOISE = 1e-10
"""A multiplier below NOISE times the scale of the objective is zero, also where all of them are."""

RANK = 1e-9
"""Relative singular value below which a direction counts as free."""


@dataclass(frozen=True, slots=True)
class SolutionSet:
    """Every solution: each output (flat, in Fortran order) as an affine function of the coordinates of the face.

    `margin` is the smallest multiplier, relative to the largest, that counts as positive: how safely the face is known.
    """

    outputs: tuple[cp.Expression, ...]
    constraints: tuple[cp.Constraint, ...]
    unique: bool
    margin: float


def solution_set(conic: Conic) -> SolutionSet | None:
    """The solution set of an exact solve; None where it is not known. Cost: one dense SVD of the conic problem."""
    data, point = conic.data, conic.point
    blocks = charts(data.dims, point.s, point.z)
    if blocks is None or data.q.size > LIMIT:
        return None
    A, P = data.A.toarray(), data.P.toarray()
    threshold = max(
        ACTIVE * float(np.abs(point.z).max(initial=0.0)), NOISE * (1.0 + float(np.abs(data.q).max(initial=0.0)))
    )
    fixed, kept = _faces(blocks, A, point.s, point.z, threshold)
    free = _null_space(np.vstack([P, data.q[None], fixed]))
    picked = [np.arange(c.start, c.stop) for c in conic.columns]
    if not free.shape[1] or all(np.abs(free[c]).max(initial=0.0) < RANK for c in picked):
        return SolutionSet(tuple(cp.Constant(point.x[c]) for c in picked), (), True, _margin(point.z, threshold))
    t = cp.Variable(free.shape[1])
    found_cones = (_constraint(k, cp.Constant(point.s[k.rows]) - cp.Constant(A[k.rows] @ free) @ t) for k in kept)
    constraints = tuple(c for c in found_cones if c is not None)
    outputs = tuple(cp.Constant(point.x[c]) + cp.Constant(free[c]) @ t for c in picked)
    return SolutionSet(outputs, constraints, False, _margin(point.z, threshold))


def _margin(z: Array, threshold: float) -> float:
    """The smallest multiplier above the threshold of activity, relative to the largest; 1 where there is none."""
    kept = np.abs(z)[np.abs(z) > threshold]
    return float(kept.min() / kept.max()) if kept.size else 1.0


def nearest(conic: Conic, targets: Sequence[Array]) -> tuple[Array, ...] | None:
    """The outputs of the point of the solution set nearest to `targets` in outputs; None where it is not
    known.

    Cost: one dense SVD of the conic problem and one exact solve.
    """
    face = solution_set(conic)
    if face is None:
        return None
    wanted = [target.reshape(-1, order="F") for target in targets]
    if face.unique:
        return tuple(dense(y.value).reshape(t.shape, order="F") for y, t in zip(face.outputs, targets, strict=True))
    goal = add([sum_squares(y - w) for y, w in zip(face.outputs, wanted, strict=True)])
    found = solve_exact(cp.Problem(cp.Minimize(goal), list(face.constraints)), face.outputs)
    if not found.status.solved:
        return None
    return tuple(y.reshape(w.shape, order="F") for y, w in zip(found.outputs, targets, strict=True))


def _null_space(matrix: Array) -> Array:
    scale = np.abs(matrix).max(axis=1, keepdims=True, initial=0.0)
    kept = matrix[scale[:, 0] > 0.0] / scale[scale[:, 0] > 0.0]
    if not kept.size:
        return np.eye(matrix.shape[1])
    return np.asarray(la.null_space(kept, rcond=RANK))


@dataclass(frozen=True, slots=True)
class Kept:
    """What remains of one block's cone on the face: `image` @ s[rows] lies in the cone named `cone`."""

    cone: str  # "nonneg", "soc", "psd" (a flat square matrix)
    rows: IntArray
    image: Array


def _faces(blocks: list[Chart], A: Array, s: Array, z: Array, threshold: float) -> tuple[Array, list[Kept]]:
    """Rows of A d = 0 that keep s − A d in the span of the face, and what remains of the cones there."""
    held: list[Array] = [np.zeros((0, A.shape[1]))]
    kept: list[Kept] = []
    start = 0
    for block in blocks:
        rows = np.arange(start, start + block.size)
        start += block.size
        equations, remains = _face(block, rows, s[rows], z[rows], threshold)
        held.append(equations @ A[rows])
        kept.extend(remains)
    return np.vstack(held), kept


def _face(block: Chart, rows: IntArray, s: Array, z: Array, threshold: float) -> tuple[Array, list[Kept]]:
    """One block: the matrix E with E s = E s* on the face, and its remaining cone."""
    one, none = np.eye(block.size), np.zeros((0, block.size))
    active = bool(np.abs(z).max(initial=0.0) > threshold)
    match block:
        case Zero():
            return one, []
        case Nonneg():
            pressed = z > threshold
            return one[pressed], [Kept("nonneg", rows, one[~pressed])]
        case SecondOrder():
            if not active:
                return none, [Kept("soc", rows, one)]
            if z[0] - np.linalg.norm(z[1:]) > threshold:
                return one, []
            return _ray(np.concatenate([z[:1], -z[1:]]), rows)
        case Semidefinite():
            values, vectors = np.linalg.eigh(block.matrix(z))
            units = [block.matrix(e) for e in one]
            normal, frame = vectors[:, values > threshold], vectors[:, values <= threshold]
            equations = np.stack([(m @ normal).reshape(-1) for m in units], axis=1)
            image = np.stack([(frame.T @ m @ frame).reshape(-1) for m in units], axis=1)
            return equations, [Kept("psd", rows, image)]
        case Fixed() if not active:
            return none, []  # inside an exponential or power cone: free for small moves
        case _:  # on the boundary of one: the ray through s
            return _ray(s, rows) if s.any() else (one, [])


def _ray(direction: Array, rows: IntArray) -> tuple[Array, list[Kept]]:
    """The face {t · direction, t ≥ 0}."""
    unit = direction / np.linalg.norm(direction)
    return np.eye(unit.size) - np.outer(unit, unit), [Kept("nonneg", rows, unit[None])]


def _constraint(kept: Kept, s: cp.Expression) -> cp.Constraint | None:
    image = matmul(kept.image, s)
    match kept.cone:
        case _ if not image.size:
            return None
        case "nonneg":
            inside: cp.Constraint = image >= 0
            return inside
        case "soc":
            return cp.SOC(image[0], image[1:])
        case _:
            n = math.isqrt(image.size)
            semidefinite: cp.Constraint = reshape(image, (n, n)) >> 0
            return semidefinite
