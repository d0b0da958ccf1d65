"""LinearMap → CVXPY, on flat vectors in C order.

Structure without parameters becomes one constant sparse matrix per node. A product with a parameter is
written so that it is DPP: what it multiplies holds no parameter, because `detach` has given it a variable of
its own (y == K x + b)."""

from collections.abc import Callable

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from opteq_cvx.ir import linmap as L
from opteq_cvx.ir.frozen import Array, IntArray, Shape, freeze_index, size
from opteq_cvx.ir.param import Const, ParamExpr, broadcast_to
from opteq_cvx.verify.cvx import add, matmul, multiply, reshape, vec

Lookup = Callable[[ParamExpr], cp.Expression]
"""The CVXPY leaf that stands for a coefficient."""

Detach = Callable[[cp.Expression], cp.Expression]
"""Replaces an expression that holds parameters by a fresh variable equal to it."""


def matrix(m: L.LinearMap) -> sp.csr_array:
    """The matrix of a map without parameters, on C-ordered flat vectors."""
    n_in, n_out = size(m.shape_in), size(m.shape_out)
    match m:
        case L.Identity():
            return sp.csr_array(sp.eye_array(n_in))
        case L.Zero():
            return sp.csr_array((n_out, n_in))
        case L.Sparse(matrix=inner):
            return inner
        case L.Diagonal(d=Const() as d):
            return sp.csr_array(sp.diags_array(np.broadcast_to(d.dense(), m.shape_in).reshape(-1)))
        case L.LeftMul(a=Const() as a):
            return _left(sp.csr_array(a.value), m.shape_in)
        case L.RightMul(b=Const() as b):
            lead = size(m.shape_in[:-1])
            return sp.csr_array(sp.kron(sp.eye_array(lead), sp.csr_array(b.value).T))
        case L.Kron(a=Const() as a):
            units = np.eye(n_in).reshape(n_in, *m.shape_in)
            return sp.csr_array(np.stack([_kron(a.dense(), u, m.side).reshape(-1) for u in units], axis=1))
        case L.Conv2d(kernel=Const() as kernel):
            return conv_matrix(m, kernel.dense())
        case L.Compose(maps=maps):
            total = matrix(maps[-1])
            for part in reversed(maps[:-1]):
                total = sp.csr_array(matrix(part) @ total)
            return total
        case L.SumMap(maps=maps):
            total = matrix(maps[0])
            for part in maps[1:]:
                total = sp.csr_array(total + matrix(part))
            return total
        case L.Adjoint(of=of):
            return sp.csr_array(matrix(of).T)
        case L.Sum(axes=axes):
            kept = np.arange(n_out).reshape([1 if i in axes else n for i, n in enumerate(m.shape_in)])
            rows = np.broadcast_to(kept, m.shape_in).reshape(-1)
            return sp.csr_array((np.ones(n_in), (rows, np.arange(n_in))), shape=(n_out, n_in))
        case L.Gather(index=index):
            return _selection(index, n_in)
        case L.Reshape(order="F"):
            grid = np.arange(n_in).reshape(m.shape_in, order="C")
            return _selection(grid.reshape(-1, order="F").reshape(m.shape_out, order="F"), n_in)
        case L.Reshape():
            return sp.csr_array(sp.eye_array(n_in))
        case L.Permute(axes=axes):
            return _selection(np.arange(n_in).reshape(m.shape_in).transpose(axes), n_in)
        case L.Broadcast():
            return _selection(np.broadcast_to(np.arange(n_in).reshape(m.shape_in), m.shape_out), n_in)
        case _:
            raise TypeError(f"{type(m).__name__} has parameters")


def windows(m: L.Conv2d) -> IntArray:
    """(outputs, C/groups, h, w) flat positions of the entries under each output's window, −1 outside the image."""
    (c, h, w), (o, rows, columns), (kh, kw) = m.shape_in, m.shape_out, m.kernel.shape[2:]
    (sh, sw), (ph, pw) = m.stride, m.padding
    i = (np.arange(rows) * sh - ph)[:, None] + np.arange(kh)
    j = (np.arange(columns) * sw - pw)[:, None] + np.arange(kw)
    place = i[:, None, :, None] * w + j[None, :, None, :]
    inside = ((i >= 0) & (i < h))[:, None, :, None] & ((j >= 0) & (j < w))[None, :, None, :]
    channels = (np.arange(o) // (o // m.groups))[:, None] * (c // m.groups) + np.arange(c // m.groups)
    full = channels[:, None, None, :, None, None] * (h * w) + place[None, :, :, None]
    return np.asarray(np.where(np.broadcast_to(inside[None, :, :, None], full.shape), full, -1))


def conv_matrix(m: L.Conv2d, kernel: Array) -> sp.csr_array:
    """The matrix of a convolution: a row for each output, its kernel at the entries under its window."""
    index = windows(m).reshape(size(m.shape_out), -1)
    pixels = size(m.shape_out[1:])
    data = np.repeat(kernel.reshape(kernel.shape[0], -1), pixels, axis=0)
    kept = index >= 0
    rows = np.broadcast_to(np.arange(index.shape[0])[:, None], index.shape)
    return sp.csr_array((data[kept], (rows[kept], index[kept])), shape=(index.shape[0], size(m.shape_in)))


def _selection(index: IntArray, n_in: int) -> sp.csr_array:
    """The matrix that picks x.flat[index], 0 where the index is −1."""
    flat, n_out = index.reshape(-1), index.size
    kept_rows = np.flatnonzero(flat >= 0)
    return sp.csr_array((np.ones(kept_rows.size), (kept_rows, flat[kept_rows])), shape=(n_out, n_in))


def _left(a: sp.csr_array, shape: Shape) -> sp.csr_array:
    """The matrix of X ↦ A @ X for X (n,) or (..., n, k)."""
    if len(shape) == 1:
        return a
    inner = sp.kron(a, sp.eye_array(shape[-1]))
    return sp.csr_array(sp.kron(sp.eye_array(size(shape[:-2])), inner))


def _kron(a: Array, x: Array, side: str) -> Array:
    return np.asarray(np.kron(a, x) if side == "left" else np.kron(x, a))


def apply(m: L.LinearMap, x: cp.Expression, lookup: Lookup, detach: Detach, *, adjoint: bool = False) -> cp.Expression:
    """K x, or Kᵀ x with `adjoint`, as a flat CVXPY expression of the flat expression x (both in C order)."""
    if all(isinstance(c, Const) for c in L.coefficients(m)):
        if isinstance(m, L.Identity):
            return x
        k = matrix(m)
        return matmul(cp.Constant(k.T if adjoint else k), x)
    match m:
        case L.Compose(maps=maps):
            for part in maps if adjoint else reversed(maps):
                x = apply(part, x, lookup, detach, adjoint=adjoint)
            return x
        case L.SumMap(maps=maps):
            return add([apply(part, x, lookup, detach, adjoint=adjoint) for part in maps])
        case L.Adjoint(of=of):
            return apply(of, x, lookup, detach, adjoint=not adjoint)
    return _times_parameter(m, detach(x), lookup, adjoint)


def _times_parameter(m: L.LinearMap, x: cp.Expression, lookup: Lookup, adjoint: bool) -> cp.Expression:
    """One node with a parameter, on an expression without any."""
    shape = m.shape_out if adjoint else m.shape_in
    match m:
        case L.Diagonal(d=d):
            return multiply(vec(lookup(broadcast_to(d, m.shape_in))) if d.shape else lookup(d), x)
        case L.LeftMul(a=a):
            return _product(lookup(a).T if adjoint else lookup(a), x, shape)
        case L.RightMul(b=b):
            rows = reshape(x, (size(shape[:-1]), shape[-1]))
            return vec(matmul(rows, lookup(b).T if adjoint else lookup(b)))
        case L.Kron(a=a):
            return _kron_product(lookup(a), m, x, adjoint)
        case L.Conv2d(kernel=kernel):
            return _convolution(lookup(kernel), m, x, adjoint)
        case _:
            raise TypeError(f"no CVXPY form of {type(m).__name__} with parameters")


def _product(a: cp.Expression, x: cp.Expression, shape: Shape) -> cp.Expression:
    """A @ X for flat X of shape (n,) or (..., n, k): the axis n comes first, the others become columns."""
    if len(shape) == 1:
        return matmul(a, x)
    lead, n, k = size(shape[:-2]), shape[-2], shape[-1]
    front = matrix(L.Permute((1, 0, 2), (lead, n, k)))
    back = matrix(L.Permute((1, 0, 2), (int(a.shape[0]), lead, k)))
    columns = reshape(matmul(cp.Constant(front), x), (n, lead * k))
    return matmul(cp.Constant(back), vec(matmul(a, columns)))


def _convolution(kernel: cp.Expression, m: L.Conv2d, x: cp.Expression, adjoint: bool) -> cp.Expression:
    """Group by group: the filters as a matrix times the patches of x, or its adjoint."""
    o, rows, columns = m.shape_out
    each, pixels = o // m.groups, rows * columns
    taps = size(m.kernel.shape[1:])
    index = windows(m).reshape(o, pixels, taps)
    filters = reshape(kernel, (o, taps))
    parts = []
    for g in range(m.groups):
        own = slice(g * each, (g + 1) * each)
        patches = _selection(freeze_index(index[g * each].T.reshape(-1)), size(m.shape_in))
        if adjoint:
            y = reshape(x[g * each * pixels : (g + 1) * each * pixels], (each, pixels))
            parts.append(matmul(cp.Constant(patches.T), vec(matmul(filters[own].T, y))))
        else:
            picked = reshape(matmul(cp.Constant(patches), x), (taps, pixels))
            parts.append(vec(matmul(filters[own], picked)))
    return add(parts) if adjoint else cp.hstack(parts)


def _kron_product(a: cp.Expression, m: L.Kron, x: cp.Expression, adjoint: bool) -> cp.Expression:
    """kron(A, X) or kron(X, A): a constant rearrangement of the outer product of A and X; its adjoint
    likewise."""
    (p, q), (rows, columns) = (int(v) for v in a.shape), m.shape_in
    grid = np.arange(p * q * rows * columns).reshape(p, q, rows, columns)  # [i, j, k, l]: A_ij X_kl
    axes = (0, 2, 1, 3) if m.side == "left" else (2, 0, 3, 1)
    rearrange = matrix(L.Gather(freeze_index(grid.transpose(axes).reshape(-1)), (grid.size,)))
    flat = vec(a)
    if adjoint:
        return matmul(reshape(matmul(cp.Constant(rearrange.T), x), (p * q, rows * columns)).T, flat)
    outer = matmul(reshape(flat, (p * q, 1)), reshape(x, (1, rows * columns)))
    return matmul(cp.Constant(rearrange), vec(outer))
