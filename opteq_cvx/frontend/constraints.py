"""CVXPY constraints as terms: each is the indicator of a set, of an affine argument where there is one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np

from opteq_cvx.errors import CompileError, UnsupportedError, message
from opteq_cvx.frontend import duals
from opteq_cvx.frontend.affine import affine
from opteq_cvx.frontend.conic import Conic
from opteq_cvx.frontend.hoist import hoist
from opteq_cvx.frontend.names import kind
from opteq_cvx.frontend.nodes import affine_node, as_affine, negative, param_node, total
from opteq_cvx.frontend.power_cones import power_tree
from opteq_cvx.frontend.quadratic_form import squares_of_form
from opteq_cvx.frontend.recognized import set_term
from opteq_cvx.frontend.scope import Scope, text
from opteq_cvx.frontend.sublevel import sublevel_term
from opteq_cvx.frontend.terms import set_terms
from opteq_cvx.frontend.tree import tree
from opteq_cvx.frontend.variables import box_term
from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.affine_shapes import permuting, reshaping
from opteq_cvx.ir.frozen import Shape, size
from opteq_cvx.ir.linmap import (
    Compose,
    Diagonal,
    Gather,
    Identity,
    LinearMap,
    Permute,
    Reshape,
    compose,
    diagonal,
)
from opteq_cvx.ir.param import Const, const, neg
from opteq_cvx.ir.program import Affine, Constraint, Dual, Origin, Term
from opteq_cvx.ir.tree import Node

Found = tuple[tuple[Term, ...], tuple[Dual, ...], Dual | None]
"""The terms of a constraint, its dual variables, and where there are several all of them joined."""

Read = Callable[[Any, Scope, Origin], Found]


def read_constraint(constraint: Any, at: int, scope: Scope) -> tuple[tuple[Term, ...], Constraint]:
    """The terms of `constraint`, number `at` of the problem, and its record without term indices.

    Raises:
        UnsupportedError: a constraint that is not convex or that no route covers.
        CompileError: a constraint without variables.
    """
    origin = Origin(f"constraint[{at}]", text(constraint))
    name = kind(constraint)
    if name is None:
        found = f"a constraint of type {type(constraint).__name__}"
        fix = "relax it to a convex constraint"
        raise UnsupportedError(message(found, "an equality, an inequality or a convex cone", fix, origin))
    record = Constraint(origin, _RECORDED.get(name, name), tuple(constraint.shape), ())
    if not any(scope.has_variables(a) for a in constraint.args):
        _check_without_variables(constraint, scope, origin)
        return (), record
    terms, duals, joined = _READERS[name](constraint, scope, origin)
    return terms, replace(record, duals=duals, joined=joined)


_RECORDED = {"zero": "equality", "nonpos": "inequality", "nonneg": "inequality", "pow_nd": "pow"}


def _check_without_variables(constraint: Any, scope: Scope, origin: Origin) -> None:
    if any(scope.has_parameters(a) for a in constraint.args):
        fix = "declare it as an attribute of the parameter (nonneg=True, bounds=..., PSD=True)"
        raise CompileError(message("a constraint of parameters only", "a constraint with a variable", fix, origin))
    if not constraint.value():
        raise CompileError(message("a constant constraint that is false", "one that can hold", "remove it", origin))


def _equality(constraint: Any, scope: Scope, origin: Origin) -> Found:
    return _zero_term(affine(constraint.expr, scope), constraint, origin)


def _zero(constraint: Any, scope: Scope, origin: Origin) -> Found:
    return _zero_term(affine(constraint.args[0], scope), constraint, origin)


def _zero_term(x: Affine, constraint: Any, origin: Origin) -> Found:
    term = Term("zero", x, origin)
    return (term,), (duals.signed(term, tuple(constraint.shape)),), None


def _nonpos(constraint: Any, scope: Scope, origin: Origin) -> Found:
    return at_most_zero(tree(constraint.args[0], scope), tuple(constraint.shape), scope, origin)


def _nonneg(constraint: Any, scope: Scope, origin: Origin) -> Found:
    return at_most_zero(negative(tree(constraint.args[0], scope)), tuple(constraint.shape), scope, origin)


def _inequality(constraint: Any, scope: Scope, origin: Origin) -> Found:
    return at_most_zero(tree(constraint.expr, scope), tuple(constraint.shape), scope, origin)


def at_most_zero(node: Node, shape: Shape, scope: Scope, origin: Origin) -> Found:
    """node ≤ 0, for a convex node; on the conic route the first term is an inequality between bounds."""
    functions, plain = _split(node, 1)
    if not functions:
        term = _affine_at_most_zero(aff.add(*plain), origin)
        return (term,), (duals.signed(term, shape),), None
    f = total(tuple(functions), functions[0].text if len(functions) == 1 else node.text)
    bound = aff.negative(aff.add(*plain)) if plain else aff.of_param(act.zeros(node.shape))
    f, bound, factor = _unscaled(f, bound)
    if not bound.parts:  # an ellipsoid is a ball of rows; beside a variable bound it is one cone
        f = squares_of_form(f, origin) or f
    rhs = affine_node(bound, origin.text) if bound.parts else param_node(bound.offset, origin.text)
    found = set_term(Node("leq", (f, rhs), node.shape, origin.text), origin) or sublevel_term(f, bound, origin)
    if found is not None:
        dual = duals.level(f, found, shape, factor)
        return (found,), () if dual is None else (dual,), None
    conic = Conic(scope, origin)
    term = _affine_at_most_zero(aff.add(conic.value(f), aff.negative(bound)), origin)
    return (term, *conic.terms), (duals.signed(term, shape, factor),), None


def _split(node: Node, sign: int) -> tuple[list[Node], list[Affine]]:
    """sign · node as a sum of functions and of affine expressions."""
    if node.op == "add":
        pieces = [_split(a, sign) for a in node.args]
        return [f for p in pieces for f in p[0]], [x for p in pieces for x in p[1]]
    if node.op == "neg":
        return _split(node.args[0], -sign)
    signed = node if sign > 0 else negative(node)
    if signed.affine is not None or signed.param is not None:
        return [], [as_affine(signed)]
    return [signed], []


def _unscaled(f: Node, bound: Affine) -> tuple[Node, Affine, float]:
    """c f ≤ bound as f ≤ bound / c for a positive constant c, and the factor 1/c of the multiplier."""
    m = f.attrs.get("map")
    if isinstance(m, Diagonal) and isinstance(m.d, Const) and m.d.shape == () and float(m.d.dense()) > 0:
        factor = 1.0 / float(m.d.dense())
        return f.args[0], aff.image(diagonal(const(factor), bound.shape), bound), factor
    return f, bound, 1.0


def _affine_at_most_zero(x: Affine, origin: Origin) -> Term:
    """x ≤ 0: a box where x selects entries of one variable, else an orthant."""
    if len(x.parts) == 1:
        name, m = x.parts[0]
        picked = selection(m)
        if picked is not None:
            sign, inner = picked
            arg = Affine(((name, inner),), act.zeros(x.shape))
            free = const(np.inf)
            if sign > 0:
                return box_term(arg, neg(free), neg(x.offset), origin)
            return box_term(arg, x.offset, free, origin)
    if all(_starts_negative(m) for _, m in x.parts):
        return Term("nonneg", aff.negative(x), origin)
    return Term("nonpos", x, origin)


def selection(m: LinearMap) -> tuple[int, LinearMap] | None:
    """(±1, S) when m = ±S and S picks distinct entries; else None."""
    sign = 1
    inner: LinearMap = Identity(m.shape_in)
    for part in reversed(m.maps if isinstance(m, Compose) else (m,)):
        match part:
            case Diagonal(d=Const() as d) if d.shape == () and abs(float(d.dense())) == 1.0:
                sign = int(sign * float(d.dense()))
            case Gather(index=index) if (index >= 0).all() and np.unique(index).size == index.size:
                inner = compose(part, inner)
            case Identity() | Reshape() | Permute():
                inner = compose(part, inner)
            case _:
                return None
    return sign, inner


def _starts_negative(m: LinearMap) -> bool:
    outer = m.maps[0] if isinstance(m, Compose) else m
    return isinstance(outer, Diagonal) and isinstance(outer.d, Const) and bool((outer.d.dense() < 0).all())


# --- cones: one argument, the parts joined along the last axis -------------------------------------------


def _cone(op: str, x: Affine, origin: Origin, *data: Node) -> tuple[Term, ...]:
    return set_terms(Node(op, (affine_node(x, origin.text), *data), x.shape, origin.text), origin)


def _soc(constraint: Any, scope: Scope, origin: Origin) -> Found:
    t, x = (affine(a, scope) for a in constraint.args)
    joined = _joined(t, x, constraint.axis, head_first=True)
    rows = np.arange(size(joined.shape)).reshape(joined.shape)
    found = duals.head_and_rows(rows, joined.shape, t.shape, x.shape, constraint.axis, head_first=True)
    return _cone("soc", joined, origin), *found


def _joined(head: Affine, x: Affine, axis: int, *, head_first: bool) -> Affine:
    """One row for each cone: its head, an entry of a vector, and its column (axis 0) or row (axis 1) of x."""
    if len(x.shape) == 2:
        x = aff.image(permuting(x.shape, (1, 0)), x) if axis == 0 else x
        rows: tuple[int, ...] = (x.shape[0],)
    else:
        x, rows = aff.image(reshaping(x.shape, (size(x.shape),)), x), ()
    head = aff.image(reshaping(head.shape, (*rows, 1)), head)
    return aff.join([head, x] if head_first else [x, head])


def _psd(constraint: Any, scope: Scope, origin: Origin) -> Found:
    """CVXPY constrains the symmetric part."""
    expr = constraint.args[0]
    x = affine(expr, scope)
    if not expr.is_symmetric():
        rank = len(x.shape)
        transposed = aff.image(permuting(x.shape, (*range(rank - 2), rank - 1, rank - 2)), x)
        x = aff.image(diagonal(const(0.5), x.shape), aff.add(x, transposed))
    return _cone("psd", x, origin), (duals.semidefinite(x.shape),), None


def _exp(constraint: Any, scope: Scope, origin: Origin) -> Found:
    parts = [affine(a, scope) for a in constraint.args]
    x = aff.stack(parts)
    return _cone("exp_cone", x, origin), *duals.columns(x.shape, [a.shape for a in parts])


def _pow(constraint: Any, scope: Scope, origin: Origin) -> Found:
    parts = [affine(a, scope) for a in constraint.args]
    x = aff.stack(parts)
    alpha = hoist(cp.Expression.cast_to_const(constraint.alpha), scope)
    whole = act.spread(act.reshape(alpha, ()), x.shape[:-1]) if size(alpha.shape) == 1 else alpha
    column = act.reshape(act.reshape(whole, x.shape[:-1]), (*x.shape[:-1], 1))
    terms = _cone("pow_cone", x, origin, param_node(column, text(constraint.alpha)))
    return terms, *duals.columns(x.shape, [a.shape for a in parts])


def _pow_nd(constraint: Any, scope: Scope, origin: Origin) -> Found:
    w, z = (affine(a, scope) for a in constraint.args)
    alpha = hoist(constraint.alpha, scope)
    if len(alpha.shape) == 2 and constraint.axis == 0:
        alpha = act.transpose(alpha)
    x = _joined(z, w, constraint.axis, head_first=False)
    term, back = power_tree(x, alpha, scope, origin)
    rows = np.arange(size(back.shape_out)).reshape(back.shape_out)[..., : x.shape[-1]]
    parts, joined = duals.head_and_rows(rows, back.shape_out, z.shape, w.shape, constraint.axis, head_first=False)
    return (term,), tuple(duals.through(d, back) for d in parts), duals.through(joined, back)


def _taken_apart(constraint: Any, scope: Scope, origin: Origin) -> Found:
    """CVXPY gives no multipliers of these cones either."""
    return Conic(scope, origin).constraint(constraint, [affine(a, scope) for a in constraint.args]), (), None


_READERS: dict[str, Read] = {
    "zero": _zero,
    "equality": _equality,
    "nonpos": _nonpos,
    "nonneg": _nonneg,
    "inequality": _inequality,
    "psd": _psd,
    "soc": _soc,
    "exp": _exp,
    "pow": _pow,
    "pow_nd": _pow_nd,
    "rel_entr": _taken_apart,
    "op_rel_entr": _taken_apart,
}
