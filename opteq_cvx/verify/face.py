"""The whole solution set of an exact solve, for programs with more than one solution.

At a solution x*, s*, z* of minimize ½xᵀPx + qᵀx, Ax + s = b, s ∈ K, the solution set is
{x : Px = Px*, qᵀx = qᵀx*, b − Ax ∈ K ∩ z*^⊥}. K ∩ z*^⊥ is a face of K: rows with a positive multiplier become
equations, a second-order block with one a ray, a semidefinite block with one a smaller semidefinite block. No
tolerance on the objective is needed, so nothing is biased. Source: reference theory, section 9.2 (face form).
"""

from collections.abc import Sequence

import cvxpy as cp
import numpy as np
import scipy.linalg as la

from opteq_cvx.ir.frozen import Array
from opteq_cvx.verify.cones import Chart, Fixed, Nonneg, SecondOrder, Semidefinite, Zero, charts
from opteq_cvx.verify.cvx import add, reshape, sum_squares
from opteq_cvx.verify.exact import Conic, solve_exact

LIMIT = 2000
"""Largest conic problem (columns) whose null space is computed."""

ACTIVE = 1e-8
"""A multiplier above ACTIVE times the largest one holds its row; polished multipliers are exact to 1e-14."""

RANK = 1e-9
"""Relative singular value below which a direction counts as free."""


def nearest(conic: Conic, targets: Sequence[Array]) -> tuple[Array, ...] | None:
    """The point of the solution set whose outputs are nearest to `targets`, as outputs; None where it is not
    known.

    Cost: one dense SVD of the conic problem and one exact solve.
    """
    data, point = conic.data, conic.point
    blocks = charts(data.dims, point.s, point.z)
    if blocks is None or data.q.size > LIMIT:
        return None
    A, P = data.A.toarray(), data.P.toarray()
    fixed, moving = _faces(blocks, A, point.s, point.z)
    free = _null_space(np.vstack([P, data.q[None], fixed]))
    picked = [np.arange(c.start, c.stop) for c in conic.columns]
    if not free.shape[1] or all(np.abs(free[c]).max(initial=0.0) < RANK for c in picked):
        return tuple(point.x[c].reshape(t.shape, order="F") for c, t in zip(picked, targets, strict=True))
    t = cp.Variable(free.shape[1])
    constraints = [c for block, rows in moving for c in _inside(block, point.s[rows] - A[rows] @ free @ t)]
    outputs: list[cp.Expression] = [cp.Constant(point.x[c]) + cp.Constant(free[c]) @ t for c in picked]
    wanted = [target.reshape(-1, order="F") for target in targets]
    goal = add([sum_squares(y - w) for y, w in zip(outputs, wanted, strict=True)])
    found = solve_exact(cp.Problem(cp.Minimize(goal), constraints), outputs)
    if not found.status.solved:
        return None
    return tuple(y.reshape(w.shape, order="F") for y, w in zip(found.outputs, targets, strict=True))


def _null_space(matrix: Array) -> Array:
    scale = np.abs(matrix).max(axis=1, keepdims=True, initial=0.0)
    kept = matrix[scale[:, 0] > 0.0] / scale[scale[:, 0] > 0.0]
    if not kept.size:
        return np.eye(matrix.shape[1])
    return np.asarray(la.null_space(kept, rcond=RANK))


def _faces(blocks: list[Chart], A: Array, s: Array, z: Array) -> tuple[Array, list[tuple[Chart, slice]]]:
    """Rows of A d = 0 that keep s − A d in the span of the face, and the blocks that still need their
    cone."""
    held: list[Array] = [np.zeros((0, A.shape[1]))]
    moving: list[tuple[Chart, slice]] = []
    largest = max(float(np.abs(z).max(initial=0.0)), 1e-300)
    start = 0
    for block in blocks:
        rows = slice(start, start + block.size)
        start += block.size
        active = bool(np.abs(z[rows]).max(initial=0.0) > ACTIVE * largest)
        match block:
            case Zero():
                held.append(A[rows])
            case Nonneg():
                pressed = z[rows] > ACTIVE * largest
                held.append(A[rows][pressed])
                loose = np.flatnonzero(~pressed) + rows.start
                moving += [(Nonneg(1), slice(int(i), int(i) + 1)) for i in loose]
            case Semidefinite() if active:
                values, vectors = np.linalg.eigh(block.matrix(z[rows]))
                normal = vectors[:, values > ACTIVE * largest]
                columns = np.stack([(block.matrix(c) @ normal).reshape(-1) for c in A[rows].T], axis=1)
                held.append(columns)
                moving.append((block, rows))
            case SecondOrder() | Fixed() if not active:
                moving.append((block, rows))
            case Semidefinite():
                moving.append((block, rows))
            case SecondOrder() if z[rows][0] - np.linalg.norm(z[rows][1:]) <= ACTIVE * largest:
                ray = np.concatenate([[z[rows][0]], -z[rows][1:]])
                held.append(A[rows] - np.outer(ray, ray @ A[rows]) / (ray @ ray))
                moving.append((block, rows))
            case SecondOrder():
                held.append(A[rows])
            case _:  # the boundary of an exponential or power cone: the ray through s
                ray = s[rows]
                held.append(A[rows] - np.outer(ray, ray @ A[rows]) / max(float(ray @ ray), 1e-300))
                moving.append((block, rows))
    return np.vstack(held), moving


def _inside(block: Chart, s: cp.Expression) -> list[cp.Constraint]:
    match block:
        case Nonneg():
            return [s >= 0]
        case SecondOrder():
            return [cp.SOC(s[0], s[1:])]
        case Semidefinite(n=n):
            basis = np.stack([block.matrix(unit).reshape(-1) for unit in np.eye(block.size)], axis=1)
            return [reshape(basis @ s, (n, n)) >> 0]
        case _:
            return []  # rays of the three-dimensional cones keep their side for small steps
