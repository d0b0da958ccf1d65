"""The dual variables of a constraint, as maps of the multiplier y ∈ N(Kx + b) of its first term.

CVXPY's Lagrangian is f + ⟨dual, expr⟩ for equalities and inequalities and f − ⟨args, dual⟩ for cones; ours is
f + ⟨y, Kx + b⟩ for every term. For ‖x‖ ≤ r the multiplier is λ ∂‖x‖, so that λ is the dual norm of y.
"""

from collections.abc import Sequence

import numpy as np

from opteq_cvx.atoms.axes import LARGEST
from opteq_cvx.ir.frozen import IntArray, Shape, size
from opteq_cvx.ir.linmap import (
    Identity,
    LinearMap,
    Permute,
    Reshape,
    Sum,
    compose,
    diagonal,
    gather,
    negate,
    sum_maps,
)
from opteq_cvx.ir.param import Apply, Const, ParamExpr, const, multiply
from opteq_cvx.ir.program import Dual, Term
from opteq_cvx.ir.tree import Node

NORMS = {"abs": "l1", "max": "l1", "norm_inf": "l1", "norm2": "l2", "sum": "linf"}
"""The dual norm, by the function of a level set; a sum is one of absolute values, or of squares."""


def signed(term: Term, shape: Shape, factor: float = 1.0) -> Dual:
    """The multiplier of expr = 0 or expr ≤ 0, for a term whose argument is expr, −expr or a part of it."""
    free_above = term.atom == "box" and _infinite(term.data["upper"])
    sign = -1.0 if term.atom == "nonneg" or free_above else 1.0
    return Dual(_scaled(_reshaped(term.arg.shape, shape), sign * factor))


def level(f: Node, term: Term, shape: Shape, factor: float) -> Dual | None:
    """The multiplier of f(x) ≤ bound for a norm, or a sum of squares, whose level set or epigraph is one term."""
    if term.atom in ("soc", "epigraph"):
        heads = np.arange(size(term.arg.shape)).reshape(term.arg.shape)[..., 0 if term.atom == "soc" else -1]
        return Dual(_scaled(compose(_reshaped(heads.shape, shape), gather(heads, term.arg.shape)), -factor))
    if term.atom == "level_set":  # the term's own multiplier is that of its function
        return Dual(_scaled(_reshaped(term.data["level"].shape, shape), factor))
    if term.atom in ("l1_ball", "l2_ball") and f.op in LARGEST:
        return _largest(f.args[0], term, factor)
    norm = NORMS.get(f.op)
    if norm is None:
        return None
    axes = tuple(f.attrs.get("axes", ()))
    scale: ParamExpr | None = None if factor == 1.0 else const(factor)
    if term.atom == "l2_ball" and f.op == "sum":  # of squares, 2‖x‖ being the slope on the sphere
        norm, radius = "l2", term.data["radius"]
        half = Apply("reshape", (radius,), shape)
        scale = multiply(const(0.5 * factor), Apply("divide", (const(1.0), half), shape))
    event = term.arg.shape
    kept = tuple(1 if i - len(event) in axes else n for i, n in enumerate(event))
    return Dual(_reshaped(kept, shape), norm, axes, scale)


def _largest(f: Node, term: Term, factor: float) -> Dual:
    """The multiplier of max_i f_i(x) ≤ bound, the sum of those of f_i(x) ≤ bound."""
    rows = term.data["radius"].shape
    together = Sum(tuple(range(len(rows))), rows)
    if term.atom == "l1_ball":
        return Dual(_scaled(together, factor), "linf", tuple(term.static["axes"]))
    scale: ParamExpr | None = None
    if f.op == "sum":  # of squares: all rows have one radius
        one = Apply("reshape", (Apply("max", (term.data["radius"],), ()),), ())
        scale = Apply("divide", (const(0.5), one), ())
    return Dual(_scaled(together, factor), "l2", tuple(term.static["axes"]), scale)


def semidefinite(shape: Shape) -> Dual:
    """−y, symmetric."""
    rank = len(shape)
    swap = Permute((*range(rank - 2), rank - 1, rank - 2), shape)
    return Dual(_scaled(sum_maps(Identity(shape), swap), -0.5))


def columns(shape: Shape, shapes: Sequence[Shape]) -> tuple[tuple[Dual, ...], Dual]:
    """−y of a cone of several scalars along the last axis: one dual for each, and all."""
    index = np.arange(size(shape)).reshape(shape)
    parts = [_negated(index[..., i].reshape(s), shape) for i, s in enumerate(shapes)]
    return tuple(parts), Dual(negate(Identity(shape)))


def head_and_rows(
    rows: IntArray, source: Shape, head: Shape, body: Shape, axis: int, *, head_first: bool
) -> tuple[tuple[Dual, ...], Dual]:
    """−y of cones whose head and body are joined along the last axis of `rows`, places in a term of shape `source`."""
    heads, rest = (rows[..., 0], rows[..., 1:]) if head_first else (rows[..., -1], rows[..., :-1])
    rest = rest.T if len(body) == 2 and axis == 0 else rest
    t, x = _negated(heads.reshape(head), source), _negated(rest.reshape(body), source)
    return (t, x) if head_first else (x, t), _negated(rows, source)


def through(dual: Dual, inner: LinearMap) -> Dual:
    """The same dual of y = inner(y′)."""
    return Dual(compose(dual.map, inner), dual.norm, dual.axes, dual.factor)


def _negated(index: IntArray, source: Shape) -> Dual:
    return Dual(negate(gather(np.ascontiguousarray(index), source)))


def _reshaped(a: Shape, b: Shape) -> LinearMap:
    return Identity(a) if a == b else Reshape(a, b, "C")


def _scaled(m: LinearMap, factor: float) -> LinearMap:
    return m if factor == 1.0 else compose(diagonal(const(factor), m.shape_out), m)


def _infinite(bound: ParamExpr) -> bool:
    return isinstance(bound, Const) and bool((bound.dense() == np.inf).all())
