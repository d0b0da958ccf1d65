"""Coefficient extraction: the matrices of an affine atom that has no rule, by CVXPY's own canonicalization.

With constant data each argument gets one sparse matrix. An atom bilinear in one parametric argument θ is
extracted basis element by basis element, out = Σₖ θₖ Gₖ x, and becomes gathers and a scatter: no matrix that
depends on a parameter is ever built.
"""

import warnings
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.frontend.hoist import hoist
from opteq_cvx.frontend.names import arguments
from opteq_cvx.frontend.scope import Scope, text
from opteq_cvx.ir import act
from opteq_cvx.ir.affine_shapes import positions, reshaping
from opteq_cvx.ir.frozen import Array, FrozenDict, IntArray, Shape, size
from opteq_cvx.ir.linmap import Adjoint, LinearMap, Sparse, compose, diagonal, gather
from opteq_cvx.ir.param import Apply, const, multiply

BASIS_LIMIT = 4096
"""Entries of a parametric argument up to which an unknown atom is extracted element by element."""


def extracted(expr: cp.Expression, scope: Scope) -> tuple[tuple[int, LinearMap], ...]:
    """The map of each varying argument of an affine atom.

    Raises:
        UnsupportedError: the coefficients depend on parameters in a way that extraction does not cover.
    """
    varying = [i for i, a in enumerate(arguments(expr)) if scope.has_variables(a)]
    parametric = [i for i, a in enumerate(arguments(expr)) if scope.has_parameters(a) and i not in varying]
    if not parametric:
        matrices = jacobians(expr, list(arguments(expr)))
        return tuple((i, Sparse(matrices[i], arguments(expr)[i].shape, expr.shape)) for i in varying)
    if len(parametric) == 1 and len(varying) == 1 and arguments(expr)[parametric[0]].size <= BASIS_LIMIT:
        found = _bilinear(expr, scope, parametric[0], varying[0])
        if found is not None:
            return ((varying[0], found),)
    raise UnsupportedError(
        message(
            f"the affine function {type(expr).__name__} has coefficients that depend on parameters",
            "a function with a structured rule",
            "write it with products, sums, stacks and indexing of CVXPY",
            f'"{text(expr)}"',
        )
    )


def jacobians(expr: cp.Expression, args: list[cp.Expression]) -> list[Any]:
    """The matrix of each argument as CSR between C-ordered flat vectors; None for constant ones."""
    probe = expr.copy([a if a.is_constant() else cp.Variable(a.shape) for a in args])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        grads = probe._grad([np.zeros(a.shape) for a in args])
    rows = _fortran_positions(expr.shape)
    out: list[Any] = []
    for a, grad in zip(args, grads, strict=True):
        if a.is_constant():
            out.append(None)
            continue
        transposed = sp.csc_array(grad).T.tocsr()  # (out, in) in Fortran order
        out.append(sp.csr_array(transposed[rows][:, _fortran_positions(a.shape)]))
    return out


def _fortran_positions(shape: Shape) -> IntArray:
    """At each C-order position, the Fortran-order position of the same entry."""
    return np.argsort(positions(shape).reshape(-1, order="F"), kind="stable")


def _bilinear(expr: cp.Expression, scope: Scope, at: int, x_at: int) -> LinearMap | None:
    """out = Σₖ θₖ Gₖ x as scatter ∘ (values ∘ gathered θ) ∘ gather; None when expr is not linear in θ."""
    shape, x_shape = arguments(expr)[at].shape, arguments(expr)[x_at].shape
    entries = []
    for k in range(size(shape)):
        matrix = sp.coo_array(_at_value(expr, at, x_at, _unit(shape, k)))
        entries.append(np.stack([np.full(matrix.nnz, k), *matrix.coords, matrix.data]))
    k, out, source, values = np.concatenate(entries, axis=1)
    trial = np.random.default_rng(0).standard_normal(shape)
    weights = values * trial.reshape(-1)[k.astype(int)]
    built = sp.coo_array((weights, (out.astype(int), source.astype(int))), (expr.size, size(x_shape)))
    gap = np.abs(built.tocsr() - _at_value(expr, at, x_at, trial)).max()
    if gap > 1e-9 * max(1.0, float(np.abs(weights).max(initial=0.0))):
        return None
    theta = act.reshape(hoist(arguments(expr)[at], scope), (size(shape),))
    picked = Apply("gather", (theta,), k.shape, FrozenDict(index=k.astype(np.int64)))
    gathered = gather(source.astype(np.int64), x_shape)
    scatter = Adjoint(gather(out.astype(np.int64), (expr.size,)))
    scaled = compose(diagonal(multiply(picked, const(values)), k.shape), gathered)
    return compose(reshaping((expr.size,), expr.shape), compose(scatter, scaled))


def _at_value(expr: cp.Expression, at: int, x_at: int, value: Array) -> Any:
    args = [cp.Constant(value) if i == at else a for i, a in enumerate(arguments(expr))]
    return jacobians(expr, args)[x_at]


def _unit(shape: Shape, k: int) -> Array:
    out = np.zeros(size(shape))
    out[k] = 1.0
    return out.reshape(shape)
