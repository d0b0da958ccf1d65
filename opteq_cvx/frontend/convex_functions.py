"""Our operations back as CVXPY functions of plain variables, for the conic route.

Power functions use power cones: exact exponents, fewer unknowns than CVXPY's towers of second-order cones.
"""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.atoms.affine.wraps import nonneg_wrap, symmetric_wrap

from opteq_cvx.ir.frozen import Array, FrozenDict
from opteq_cvx.ir.tree import Node

Build = Callable[..., cp.Expression]
OF_SYMMETRIC = ("neg_von_neumann_entr", "quantum_rel_entr")
"""Functions that CVXPY makes of symmetric arguments only."""


Rebuilt = tuple[cp.Expression, tuple[cp.Variable, ...], tuple[Any, ...]]
"""A convex function, its variables, and constraints that tie them to variables with attributes."""


def rebuild(node: Node, data: Array | None) -> Rebuilt | None:
    """The convex function at the root of `node`: of one plain variable for each argument, and of its data.

    None for an operation that has no CVXPY function.
    """
    if "atom" in node.attrs:
        return _of_atom(node.attrs["atom"], negative=bool(node.attrs.get("negative")))
    variables = tuple(cp.Variable(a.shape) for a in node.args)
    pairs = zip(variables, node.args, strict=True)
    given = [symmetric_wrap(v) if a.attrs.get("symmetric") or node.op in OF_SYMMETRIC else v for v, a in pairs]
    attrs = {k: v for k, v in node.attrs.items() if k not in ("axes", "keepdims")}
    if "axes" in node.attrs:
        attrs |= _axis(node.attrs, len(node.args[0].shape))
    build = FUNCTIONS.get(node.op) or getattr(cp, node.op, None)
    if build is None:
        return None
    expr = build(*given, **attrs) if data is None else build(*given, data, **attrs)
    return cp.reshape(expr, node.shape, order="C") if expr.shape != node.shape else expr, variables, ()


def _axis(attrs: FrozenDict, rank: int) -> dict[str, Any]:
    axes = tuple(sorted(a + rank for a in attrs["axes"]))
    axis = None if len(axes) == rank else axes[0] if len(axes) == 1 else axes
    return {"axis": axis, "keepdims": attrs["keepdims"]}


def _of_atom(atom: Any, *, negative: bool) -> Rebuilt:
    """An atom with data of its own; a perspective is one of the user's own variables, which are tied to plain ones."""
    variables = tuple(cp.Variable(a.shape) for a in atom.args)
    if hasattr(atom, "f"):
        ties = tuple(a == v for a, v in zip(atom.args, variables, strict=True))
        return -atom if negative else atom, variables, ties
    return type(atom)(*variables, atom._parent), variables, ()


FUNCTIONS: dict[str, Build] = {
    "square": cp.square,
    "power": lambda x, p: cp.power(x, p, approx=False),
    "neg_power": lambda x, p: -cp.power(x, p, approx=False),
    "neg_log": lambda x: -cp.log(x),
    "neg_entr": lambda x: -cp.entr(x),
    "huber": lambda x, m: cp.huber(x, m.reshape(-1)[0]),
    "xexp": lambda x: cp.xexp(nonneg_wrap(x)),
    "norm2": lambda x, axis, keepdims: cp.pnorm(x, 2, axis=axis, keepdims=keepdims),
    "pnorm": lambda x, p, axis, keepdims: cp.pnorm(x, p, axis=axis, keepdims=keepdims, approx=False),
    "neg_pnorm": lambda x, p, axis, keepdims: -cp.pnorm(x, p, axis=axis, keepdims=keepdims, approx=False),
    "neg_geo_mean": lambda x, p, axis, keepdims: (
        -cp.geo_mean(x, np.array(p), approx=False, axis=axis, keepdims=keepdims)
    ),
    "inv_prod": lambda x, p, axis, keepdims: cp.power(
        cp.geo_mean(x, np.array(p) / sum(p), approx=False, axis=axis, keepdims=keepdims), -sum(p), approx=False
    ),
    "neg_log_det": lambda x: -cp.log_det(x),
    "neg_von_neumann_entr": lambda x: -cp.von_neumann_entr(x),
    "norm_nuc": cp.normNuc,
    "cummax": lambda x, axis: cp.cummax(x, axis=axis % max(x.ndim, 1)),
    "lambda_sum_largest": cp.lambda_sum_largest,
}
"""CVXPY's function of each operation whose name or call differs from ours."""
