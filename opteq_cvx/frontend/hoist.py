"""Parameter-only sub-expressions as ParamExprs: evaluated by torch once per call, never inside the loop.

Each operation keeps the name of its CVXPY function (no normalization to convex ones). Constants are folded by
CVXPY itself; DPP plays no role.
"""

import warnings
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.frontend.names import arguments, entry, hidden
from opteq_cvx.frontend.scope import Scope, complex_values, text
from opteq_cvx.ir import act
from opteq_cvx.ir.affine_products import unspread
from opteq_cvx.ir.frozen import FrozenDict, size
from opteq_cvx.ir.linmap import Reshape, compose
from opteq_cvx.ir.param import Apply, Const, ParamExpr, add, is_one, multiply, neg
from opteq_cvx.ir.param import const as make_const

SPARSE_SIZE = 1 << 16  # dense constants with this many entries are stored sparse where at most
SPARSE_DENSITY = 0.01  # this share is nonzero: np.eye(4000) takes 128 MB otherwise


def hoist(expr: cp.Expression, scope: Scope) -> ParamExpr:
    """`expr`, which holds no variable, as a ParamExpr.

    Raises:
        UnsupportedError: an operation that has no meaning for real parameters, or is not CVXPY's.
    """
    if isinstance(expr, cp.Parameter):
        return scope.leaf(expr)
    return scope.params.of(expr, lambda: _hoist(expr, scope))


def _hoist(expr: cp.Expression, scope: Scope) -> ParamExpr:
    if expr.is_complex():
        raise UnsupportedError(complex_values(expr))
    if not scope.has_parameters(expr):
        return constant(expr)
    row = entry(expr)
    if row is None:
        found = f"{type(expr).__name__} of parameters is not one of CVXPY's functions"
        fix = "write it with CVXPY's functions, or compute it in torch and pass it as an opteq_cvx.Input"
        raise UnsupportedError(message(found, "a function of CVXPY", fix, f'"{text(expr)}"'))
    args = tuple(hoist(a, scope) for a in (*arguments(expr), *hidden(expr)))
    rule = _RULES.get(row.op)
    attrs = row.attrs(expr)
    return rule(expr, args, attrs) if rule is not None else Apply(row.op, args, expr.shape, FrozenDict(attrs))


def constant(expr: cp.Expression) -> ParamExpr:
    """A parameter-free expression by its value; large nearly empty constants become sparse."""
    row = entry(expr)
    if row is not None and row.op in ("promote", "broadcast_to"):
        inner = constant(arguments(expr)[0])
        return act.spread(act.reshape(inner, ()) if row.op == "promote" else inner, expr.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about infinities in the user's own constants
        value: Any = expr.value
    if value is None:
        raise UnsupportedError(message("a constant without a value", "numbers", "give it a value", f'"{text(expr)}"'))
    if sp.issparse(value):
        return make_const(value) if value.ndim == 2 else make_const(value.toarray())
    array = np.asarray(value, dtype=np.float64).reshape(expr.shape)
    if array.ndim == 2 and array.size >= SPARSE_SIZE:
        count = np.count_nonzero(array)
        if count == np.count_nonzero(array.diagonal()):
            return make_const(sp.diags_array(array.diagonal(), shape=array.shape))
        if count <= SPARSE_DENSITY * array.size:
            return make_const(sp.csr_array(array))
    if not isinstance(expr, cp.Constant) or not array.flags.c_contiguous:
        return make_const(array)
    snapshot = array.view()  # a cp.Constant owns a private copy of the user's data already
    snapshot.flags.writeable = False
    return Const(snapshot)


def _promote(expr: cp.Expression, args: tuple[ParamExpr, ...], attrs: dict[str, Any]) -> ParamExpr:
    return act.spread(act.reshape(args[0], ()), expr.shape)


def _add(expr: cp.Expression, args: tuple[ParamExpr, ...], attrs: dict[str, Any]) -> ParamExpr:
    return act.spread(add(*args), expr.shape)


def _multiply(expr: cp.Expression, args: tuple[ParamExpr, ...], attrs: dict[str, Any]) -> ParamExpr:
    a, b = args
    if a.shape == b.shape:
        thin = unspread(a, b.shape)
        a, b = (thin, b) if thin is not a else (a, unspread(b, a.shape))
    return act.spread(multiply(a, b), expr.shape)


def _matmul(expr: cp.Expression, args: tuple[ParamExpr, ...], attrs: dict[str, Any]) -> ParamExpr:
    if len(args[0].shape) == len(args[1].shape) == 2 and args[0].shape[1] == 1 and any(is_one(a) for a in args):
        return act.spread(args[1] if is_one(args[0]) else args[0], expr.shape)  # CVXPY's own broadcast
    return Apply("matmul", args, expr.shape)


def _gather(expr: cp.Expression, args: tuple[ParamExpr, ...], attrs: dict[str, Any]) -> ParamExpr:
    if np.array_equal(attrs["index"].reshape(-1), np.arange(size(args[0].shape))):
        return act.reshape(args[0], expr.shape)  # a new axis, or nothing
    return Apply("gather", args, expr.shape, FrozenDict(attrs))


def _conv2d(expr: cp.Expression, args: tuple[ParamExpr, ...], attrs: dict[str, Any]) -> ParamExpr:
    return act.apply(attrs["linear"](args[1]), args[0])


def _conv2d_matrix(expr: cp.Expression, args: tuple[ParamExpr, ...], attrs: dict[str, Any]) -> ParamExpr:
    """A map between vectors, as the matrix of parameters that it is."""
    conv = attrs["linear"](args[0])
    rows, columns = (size(conv.shape_out),), (size(conv.shape_in),)
    flat = compose(Reshape(conv.shape_out, rows, "C"), compose(conv, Reshape(columns, conv.shape_in, "C")))
    return Apply("map_matrix", args, expr.shape, FrozenDict(map=flat))


def _quad_over_lin(expr: cp.Expression, args: tuple[ParamExpr, ...], attrs: dict[str, Any]) -> ParamExpr:
    return Apply("quad_over_lin", (args[0], act.reshape(args[1], ())), expr.shape, FrozenDict(attrs))


_RULES: dict[str, Any] = {
    "add": _add,
    "conv2d": _conv2d,
    "conv2d_matrix": _conv2d_matrix,
    "broadcast_to": lambda expr, args, attrs: act.spread(args[0], expr.shape),
    "gather": _gather,
    "gmatmul": lambda expr, args, attrs: Apply("gmatmul", (args[1], args[0]), expr.shape),
    "matmul": _matmul,
    "multiply": _multiply,
    "neg": lambda expr, args, attrs: neg(args[0]),
    "promote": _promote,
    "quad_over_lin": _quad_over_lin,
    "reshape": lambda expr, args, attrs: act.reshape(args[0], expr.shape, attrs["order"]),
    "transpose": lambda expr, args, attrs: act.transpose(args[0], attrs["axes"]),
    "wrap": lambda expr, args, attrs: args[0],
}
