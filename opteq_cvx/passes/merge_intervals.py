"""Several intervals on one variable become one box, so that a single clip meets them all."""

from collections import defaultdict
from dataclasses import replace

import numpy as np

from opteq_cvx.ir.frozen import FrozenDict, IntArray, Shape, freeze_index, size
from opteq_cvx.ir.layout import Layout, as_selection
from opteq_cvx.ir.linmap import Identity
from opteq_cvx.ir.param import Apply, Const, ParamExpr, broadcast_to, const
from opteq_cvx.ir.program import Affine, Origin, Program, Term
from opteq_cvx.passes.intervals import interval_bounds


def merge_intervals(program: Program) -> Program:
    """Merge nonneg, nonpos and box terms that select entries of the same variable, two or more."""
    layout = Layout.of(program)
    groups: dict[str, list[int]] = defaultdict(list)
    for i, term in enumerate(program.terms):
        selection = as_selection(term.arg, layout)
        if interval_bounds(term) is not None and selection is not None and selection.plain:
            groups[term.arg.parts[0][0]].append(i)
    merged: dict[int, Term] = {}
    for name, members in groups.items():
        if len(members) > 1:
            merged[members[0]] = _box([program.terms[i] for i in members], name, program.shape_of(name), layout)
    if not merged:
        return program
    gone = {i for members in groups.values() if len(members) > 1 for i in members} - set(merged)
    return _without(replace(program, terms=tuple(merged.get(i, t) for i, t in enumerate(program.terms))), gone, groups)


def _without(program: Program, gone: set[int], groups: dict[str, list[int]]) -> Program:
    """Drop merged terms and point the constraints at the boxes that took them in."""
    keep = [i for i in range(len(program.terms)) if i not in gone]
    home = {i: members[0] for members in groups.values() for i in members}
    new = {old: k for k, old in enumerate(keep)}
    constraints = tuple(
        replace(c, terms=tuple(new[i if i in new else home[i]] for i in c.terms)) for c in program.constraints
    )
    return replace(program, terms=tuple(program.terms[i] for i in keep), constraints=constraints)


def _box(terms: list[Term], name: str, shape: Shape, layout: Layout) -> Term:
    start = layout.start(name)
    lower: ParamExpr = const(np.full(shape, -np.inf))
    upper: ParamExpr = const(np.full(shape, np.inf))
    for term in terms:
        selection, bounds = as_selection(term.arg, layout), interval_bounds(term)
        assert selection is not None  # chosen by the caller
        assert bounds is not None
        index = np.asarray(selection.index - start)  # of a scalar, NumPy makes a number
        lower = _combine("maximum", lower, _embed(bounds[0], index, shape, -np.inf))
        upper = _combine("minimum", upper, _embed(bounds[1], index, shape, np.inf))
    where = ", ".join(t.origin.where for t in terms)
    origin = Origin(where, "; ".join(t.origin.text for t in terms))
    arg = Affine(((name, Identity(shape)),), const(np.zeros(shape)))
    return Term("box", arg, origin, data=FrozenDict(lower=lower, upper=upper))


def _embed(bound: ParamExpr, index: IntArray, shape: Shape, outside: float) -> ParamExpr:
    """A bound on selected entries as a bound on all entries, `outside` where it says nothing."""
    bound = broadcast_to(bound, index.shape)
    n, count = size(shape), index.size
    if np.array_equal(index.reshape(-1), np.arange(n)) and index.shape == shape:
        return bound
    if isinstance(bound, Const):
        full = np.full(n, outside)
        full[index.reshape(-1)] = bound.dense().reshape(-1)
        return const(full.reshape(shape))
    place = np.full(n, count, dtype=np.int64)
    place[index.reshape(-1)] = np.arange(count)
    flat = Apply("reshape", (bound,), (count,), FrozenDict(order="C"))
    padded = Apply("hstack", (flat, const(np.array([outside]))), (count + 1,))
    return Apply("gather", (padded,), shape, FrozenDict(index=freeze_index(place.reshape(shape))))


def _combine(op: str, a: ParamExpr, b: ParamExpr) -> ParamExpr:
    if isinstance(a, Const) and isinstance(b, Const):
        return const((np.maximum if op == "maximum" else np.minimum)(a.dense(), b.dense()))
    trivial = np.inf if op == "minimum" else -np.inf
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Const) and (one.dense() == trivial).all():
            return other
    return Apply(op, (a, b), np.broadcast_shapes(a.shape, b.shape))
