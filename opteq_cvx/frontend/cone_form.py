"""The epigraph of one convex function over cones, by CVXPY's own canonicalization with constant data.

{(v, t) : f(v) ≤ t} = {(v, t) : some s has G v + T t + S s + c ∈ K₁ × K₂ × …}, K the cones that CVXPY hands to Clarabel.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from opteq_cvx.ir.frozen import Array, IntArray, Shape, size
from opteq_cvx.ir.linmap import LinearMap, Sparse, compose, diagonal, gather
from opteq_cvx.ir.param import const


@dataclass(frozen=True, slots=True, eq=False)
class ConeRows:
    """One term: the atom of a cone and its argument `shape`, affine in the arguments, the bound and s.

    `arguments`, `bound` and `auxiliary` are matrices from C-ordered flat vectors; `alpha` the exponents of power cones.
    """

    atom: str
    shape: Shape
    arguments: tuple[sp.csr_array, ...]
    bound: sp.csr_array
    auxiliary: sp.csr_array
    offset: Array
    alpha: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ConeForm:
    """f(v) ≤ t as cone terms with `count` auxiliary unknowns."""

    rows: tuple[ConeRows, ...]
    count: int


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows of the stacked cone program that make one term: `pick` turns them into entries of the argument."""

    atom: str
    shape: Shape
    pick: sp.csr_array
    alpha: Array | None = None


def epigraph(f: cp.Expression, arguments: Sequence[cp.Variable], more: Sequence[Any] = ()) -> ConeForm:
    """The cones of f ≤ t, for a convex `f` of plain variables, and of the constraints `more`."""
    t = cp.Variable(f.shape)
    return cone_form([f <= t, *more], arguments, t)


def cone_form(constraints: Sequence[Any], arguments: Sequence[cp.Variable], t: cp.Variable | None = None) -> ConeForm:
    """The cones of constraints on plain variables and on t, the bound of an epigraph; other unknowns are auxiliary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data: dict[str, Any] = cp.Problem(cp.Minimize(0), list(constraints)).get_problem_data(
            cp.CLARABEL,
            canon_backend="SCIPY",  # the default one scrambles matrices under an identity permutation
        )[0]
    matrix, offset = sp.csr_array(-data["A"]), np.asarray(data["b"], dtype=np.float64)
    for side in ("lower_bounds", "upper_bounds"):
        assert data.get(side) is None, "Clarabel has no variable bounds"
    columns = data["param_prob"].var_id_to_col
    inside = [_columns(columns, v) for v in arguments]
    bound = np.zeros(0, dtype=np.int64) if t is None else _columns(columns, t)
    known = np.concatenate([bound, *inside])
    rest = np.setdiff1d(np.arange(matrix.shape[1]), known)
    matrix, rest, kept = _without_copies(matrix, offset, bound, rest, data["dims"])
    rows = []
    for group in _groups(data["dims"], kept):
        picked = sp.csr_array(group.pick @ matrix)
        parts = tuple(sp.csr_array(picked[:, c]) for c in inside)
        more = (sp.csr_array(picked[:, bound]), sp.csr_array(picked[:, rest]), group.pick @ offset)
        rows.append(ConeRows(group.atom, group.shape, parts, *more, group.alpha))
    return ConeForm(tuple(rows), int(rest.size))


def structured(matrix: sp.csr_array, shape_in: Shape, shape_out: Shape) -> LinearMap | None:
    """A matrix as a map: a scaled selection where it is one, None where it is zero."""
    matrix = sp.csr_array(matrix)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    if not matrix.nnz:
        return None
    if (np.diff(matrix.indptr) <= 1).all() and (matrix.data == matrix.data[0]).all():
        index = np.full(size(shape_out), -1, dtype=np.int64)
        index[np.diff(matrix.indptr) == 1] = matrix.indices
        picked = gather(index.reshape(shape_out), shape_in)
        return compose(diagonal(const(matrix.data[0]), shape_out), picked)
    return Sparse(matrix, shape_in, shape_out)


def _columns(start_of: dict[int, int], v: cp.Variable) -> IntArray:
    """The columns of a variable's entries in C order; CVXPY's vectors are in Fortran order."""
    order = np.arange(size(v.shape)).reshape(v.shape, order="F").reshape(-1)
    return np.asarray(start_of[v.id] + order, dtype=np.int64)


def _without_copies(
    matrix: sp.csr_array, offset: Array, bound: IntArray, rest: IntArray, dims: Any
) -> tuple[sp.csr_array, IntArray, IntArray]:
    """Remove s ≤ t between an epigraph variable s of CVXPY and the bound t.

    Returns (matrix, auxiliary columns, rows of the nonnegative cone that are left).
    """
    start, stop = dims.zero, dims.zero + dims.nonneg
    is_bound, is_rest = np.isin(np.arange(matrix.shape[1]), bound), np.isin(np.arange(matrix.shape[1]), rest)
    merge = sp.lil_array(sp.eye_array(matrix.shape[1]))
    dropped_rows, dropped_columns = [], []
    for row in range(start, stop):
        found = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
        values = matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]]
        if found.size != 2 or offset[row] != 0:
            continue
        (t,), (s,) = found[values == 1.0][:1].tolist() or [-1], found[values == -1.0][:1].tolist() or [-1]
        if t >= 0 and s >= 0 and is_bound[t] and is_rest[s] and s not in dropped_columns:
            dropped_rows.append(row)
            dropped_columns.append(s)
            merge[s, s], merge[s, t] = 0.0, 1.0
    kept = np.setdiff1d(np.arange(start, stop), dropped_rows)
    return sp.csr_array(matrix @ sp.csr_array(merge)), np.setdiff1d(rest, dropped_columns), kept


def _groups(dims: Any, nonneg: IntArray) -> list[_Group]:
    """The cones in Clarabel's order; neighbors of one kind and size make one group."""
    count = dims.zero + dims.nonneg + sum(dims.soc) + sum(n * (n + 1) // 2 for n in dims.psd) + 3 * dims.exp
    count += 3 * len(dims.p3d) + sum(len(a) + 1 for a in dims.pnd)
    at, groups = dims.zero + dims.nonneg, []
    if dims.zero:
        groups.append(_Group("zero", (dims.zero,), _selected(np.arange(dims.zero), count)))
    if nonneg.size:
        groups.append(_Group("nonneg", (nonneg.size,), _selected(nonneg, count)))
    for n, k in _runs(dims.soc):
        groups.append(_Group("soc", (k, n) if k > 1 else (n,), _selected(at + np.arange(k * n), count)))
        at += k * n
    for n, k in _runs(dims.psd):
        width = n * (n + 1) // 2
        pick = sp.kron(sp.eye_array(k), _matrix_of_triangle(n))
        groups.append(_Group("psd", (k, n, n) if k > 1 else (n, n), _shifted(pick, at, count)))
        at += k * width
    if dims.exp:
        groups.append(_Group("exp_cone", (dims.exp, 3), _selected(at + np.arange(3 * dims.exp), count)))
        at += 3 * dims.exp
    if dims.p3d:
        k, alpha = len(dims.p3d), np.asarray(dims.p3d, dtype=np.float64).reshape(-1, 1)
        groups.append(_Group("pow_cone", (k, 3), _selected(at + np.arange(3 * k), count), alpha))
        at += 3 * k
    for exponents in dims.pnd:
        n, alpha = len(exponents) + 1, np.asarray(exponents, dtype=np.float64)
        groups.append(_Group("pow_cone_nd", (n,), _selected(at + np.arange(n), count), alpha))
        at += n
    assert at == count, "every row belongs to a cone"
    return groups


def _runs(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """(size, how many in a row)."""
    out: list[tuple[int, int]] = []
    for n in map(int, sizes):
        if out and out[-1][0] == n:
            out[-1] = (n, out[-1][1] + 1)
        else:
            out.append((n, 1))
    return out


def _selected(rows: IntArray, count: int) -> sp.csr_array:
    return sp.csr_array((np.ones(rows.size), (np.arange(rows.size), rows)), shape=(rows.size, count))


def _shifted(pick: Any, at: int, count: int) -> sp.csr_array:
    pick = sp.coo_array(pick)
    return sp.csr_array((pick.data, (pick.coords[0], pick.coords[1] + at)), shape=(pick.shape[0], count))


def _matrix_of_triangle(n: int) -> sp.csr_array:
    """The symmetric n×n matrix of its upper triangle, column by column, whose entries off the diagonal carry √2."""
    columns, rows = np.tril_indices(n)  # (j, i) with i ≤ j, j first: column by column
    at = np.arange(columns.size)
    scale = np.where(rows == columns, 1.0, np.sqrt(0.5))
    off = rows != columns
    entries = np.concatenate([rows * n + columns, (columns * n + rows)[off]])
    values, source = np.concatenate([scale, scale[off]]), np.concatenate([at, at[off]])
    return sp.csr_array((values, (entries, source)), shape=(n * n, columns.size))
