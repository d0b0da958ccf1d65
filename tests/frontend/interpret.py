"""Programs by CVXPY's own functions: an oracle that shares no code with the torch evaluation.

`Apply("norm1", (W,), {"axis": 0})` means `cvxpy.norm1(W, axis=0)`: so that is what is computed here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import cvxpy as cp
import numpy as np

from opteq_cvx.atoms import Recognized
from opteq_cvx.ir import act, meaning
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.param import Const, Leaf, ParamExpr
from opteq_cvx.ir.program import Affine, Program, Term
from opteq_cvx.ir.tree import Node

Values = Mapping[str, np.ndarray]

PARAM: dict[str, Callable[..., Any]] = {
    "add": lambda *args: sum(args[1:], args[0]),
    "neg": lambda x: -x,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "matmul": lambda x, y: x @ y,
    "transpose": lambda x, axes: np.transpose(x, axes),
    "gather": lambda x, index: np.append(x.reshape(-1), 0.0)[index],
    "hstack": lambda *args: np.hstack(args),
    "vstack": lambda *args: np.vstack(args),
    "concatenate": lambda *args, axis: np.concatenate(args, axis=axis),
    "diag_vec": lambda x, k: np.diag(x, k),
    "diag_mat": lambda x, k: np.diag(x, k),
    "power": lambda x, *p, **attrs: np.power(x, p[0] if p else attrs["p"]),
    "norm_nuc": cp.normNuc,
    "inverse_factor": lambda p: np.linalg.inv(np.linalg.cholesky(p)),
    "cholesky": np.linalg.cholesky,
}


def param(expr: ParamExpr, values: Values) -> np.ndarray:
    """The value of a ParamExpr."""
    if isinstance(expr, Const):
        return expr.dense()
    if isinstance(expr, Leaf):
        return np.asarray(values[expr.name], dtype=float)
    args = [param(a, values) for a in expr.args]
    attrs = dict(expr.attrs)
    if expr.op == "map":
        out = meaning.apply(attrs["map"], args[0], lambda p: param(p, values))
    elif expr.op == "map_adjoint":
        out = meaning.adjoint(attrs["map"], args[0], lambda p: param(p, values))
    elif expr.op == "reshape":
        out = np.reshape(args[0], expr.shape, order=attrs["order"])
    elif expr.op == "broadcast_to":
        out = np.broadcast_to(args[0], expr.shape)
    else:
        function = PARAM.get(expr.op) or getattr(cp, expr.op)
        out = function(*args, **attrs)
    out = out.value if isinstance(out, cp.Expression) else out
    assert np.shape(out) == expr.shape or (np.size(out) == 1 and expr.shape == ()), f"{expr.op}: {np.shape(out)}"
    return np.asarray(out, dtype=float).reshape(expr.shape)


def affine(x: Affine, variables: Values, values: Values) -> np.ndarray:
    """The value of an Affine."""
    total = param(x.offset, values).copy()
    for name, m in x.parts:
        total = total + meaning.apply(m, np.asarray(variables[name]), lambda p: param(p, values))
    assert total.shape == x.shape
    return total


def _axis(args: list[Any], attrs: dict[str, Any]) -> dict[str, Any]:
    axes = tuple(sorted(a % args[0].ndim for a in attrs["axes"]))
    axis = None if len(axes) == args[0].ndim else axes[0] if len(axes) == 1 else axes
    return {"axis": axis, "keepdims": attrs["keepdims"]}


def _norm2(x: np.ndarray, **where: Any) -> Any:
    return np.sqrt(np.sum(x**2, **where))


NODE: dict[str, Callable[..., Any]] = {
    "add": lambda *args: sum(args[1:], args[0]),
    "neg": lambda x: -x,
    "square": np.square,
    "neg_power": lambda x, p: -np.power(x, p),
    "power": lambda x, p: np.power(x, p),
    "huber": lambda x, M: np.where(np.abs(x) <= M, x**2, 2 * M * np.abs(x) - M**2),
    "neg_log": lambda x: -np.log(x),
    "neg_entr": lambda x: x * np.log(x),
    "neg_log_det": lambda x: -np.linalg.slogdet(x)[1],
    "neg_von_neumann_entr": lambda x: -cp.von_neumann_entr(x),
    "norm_nuc": cp.normNuc,
}
REDUCING: dict[str, Callable[..., Any]] = {
    "norm2": _norm2,
    "neg_pnorm": lambda x, p, **where: -cp.pnorm(x, p, **where),
    "neg_geo_mean": lambda x, p, **where: -cp.geo_mean(x, np.array(p), **where),
    "inv_prod": lambda x, p, **where: cp.geo_mean(x, np.array(p), **where) ** -sum(p),
}


def node(n: Node, variables: Values, values: Values) -> np.ndarray:
    """The value of a Node."""
    if n.param is not None:
        return param(n.param, values)
    if n.affine is not None:
        return affine(n.affine, variables, values)
    args = [node(a, variables, values) for a in n.args]
    attrs = dict(n.attrs)
    if n.op in ("linear", "sum"):
        out: Any = meaning.apply(attrs["map"], args[0], lambda p: param(p, values))
    elif "axes" in attrs:
        where = _axis(args, attrs)
        rest = {k: v for k, v in attrs.items() if k not in ("axes", "keepdims")}
        out = (REDUCING.get(n.op) or getattr(cp, n.op))(*args, **rest, **where)
    else:
        out = (NODE.get(n.op) or getattr(cp, n.op))(*args, **attrs)
    out = out.value if isinstance(out, cp.Expression) else out
    return np.asarray(out, dtype=float).reshape(n.shape)


class Probe:
    """Stands for whatever atom a node will have: it keeps the node itself."""

    name = "probe"


def recognize_all(n: Node) -> tuple[type[Probe], Recognized]:
    """A registry that knows every node."""
    return Probe, Recognized(Affine((), act.zeros(n.shape)), FrozenDict(node=n))


def objective(program: Program, variables: Values, values: Values) -> float:
    """sign · (offset + Σ terms): the value of the user's own objective."""
    total = float(param(program.offset, values))
    inside = {i for c in program.constraints for i in c.terms}
    for i, term in enumerate(program.terms):
        if i not in inside:
            total += term_value(term, variables, values)
    return program.sign * total


def term_value(term: Term, variables: Values, values: Values) -> float:
    """⟨weight, f⟩; sets count as 0."""
    if term.atom == "linear":
        return float(affine(term.arg, variables, values))
    if "node" not in term.static:
        return 0.0
    if term.static["node"].op in ("symmetric", "psd"):
        return 0.0
    value = node(term.static["node"], variables, values)
    weight = np.ones(()) if term.weight is None else param(term.weight, values)
    assert term.weight is None or weight.shape == value.shape
    return float(np.sum(weight * value))


def violation(term: Term, variables: Values, values: Values) -> np.ndarray:
    """How far an equality, inequality or bound is from holding, entry by entry."""
    if term.atom == "zero":
        return np.abs(affine(term.arg, variables, values))
    if term.atom == "nonpos":
        return np.maximum(affine(term.arg, variables, values), 0)
    if term.atom == "nonneg":
        return np.maximum(-affine(term.arg, variables, values), 0)
    if term.atom == "box":
        x = affine(term.arg, variables, values)
        low, high = (param(term.data[k], values) for k in ("lower", "upper"))
        assert low.shape == high.shape == x.shape
        return np.maximum(low - x, 0) + np.maximum(x - high, 0)
    f, rhs = term.static["node"].args
    assert term.static["node"].op == "leq"
    return np.maximum(node(f, variables, values) - node(rhs, variables, values), 0)
