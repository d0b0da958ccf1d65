"""Several intervals on one variable become one box, so that a single clip meets them all.

Beside another function of a part of the variable only those that share coordinates do: a box on all of it would overlap
that function, and the program would no longer split into blocks.
"""

from collections import defaultdict
from dataclasses import replace

import numpy as np

from opteq_cvx.ir.frozen import FrozenDict, IntArray, Shape, freeze_index, size
from opteq_cvx.ir.layout import Layout, as_selection
from opteq_cvx.ir.linmap import Identity, gather
from opteq_cvx.ir.param import Apply, Const, ParamExpr, broadcast_to, const
from opteq_cvx.ir.program import Affine, Origin, Program, Term
from opteq_cvx.passes.intervals import interval_bounds

SMOOTH = ("square", "quad_form", "linear")
"""Atoms that go into the quadratic part."""


def merge_intervals(program: Program) -> Program:
    """Merge nonneg, nonpos and box terms that select entries of the same variable, two or more."""
    layout = Layout.of(program)
    names: dict[str, list[int]] = defaultdict(list)
    for i, term in enumerate(program.terms):
        selection = as_selection(term.arg, layout)
        if interval_bounds(term) is not None and selection is not None and selection.plain:
            names[term.arg.parts[0][0]].append(i)
    merged: dict[int, Term] = {}
    groups: list[list[int]] = []
    for name, members in names.items():
        alone = _beside_others(program, name, members, layout)
        for group in _overlapping(program, members, layout) if alone else [members]:
            groups.append(group)
            if len(group) > 1:
                terms = [program.terms[i] for i in group]
                merged[group[0]] = _box(terms, name, program.shape_of(name), layout, whole=not alone)
    if not merged:
        return program
    gone = {i for group in groups if len(group) > 1 for i in group} - set(merged)
    return _without(replace(program, terms=tuple(merged.get(i, t) for i, t in enumerate(program.terms))), gone, groups)


def _beside_others(program: Program, name: str, members: list[int], layout: Layout) -> bool:
    """Whether a function with a prox of its own selects a part of the variable."""
    for i, term in enumerate(program.terms):
        if i in members or term.atom in SMOOTH or all(part != name for part, _ in term.arg.parts):
            continue
        selection = as_selection(term.arg, layout)
        if selection is not None and selection.index.size < size(program.shape_of(name)):
            return True
    return False


def _overlapping(program: Program, members: list[int], layout: Layout) -> list[list[int]]:
    """The terms in groups that share coordinates, each group and all of them in order."""
    found: list[tuple[list[int], set[int]]] = []
    for i in members:
        selection = as_selection(program.terms[i].arg, layout)
        assert selection is not None  # chosen by the caller
        group, places = [i], set(selection.index.reshape(-1).tolist())
        for other in [f for f in found if not f[1].isdisjoint(places)]:
            found.remove(other)
            group, places = other[0] + group, other[1] | places
        found.append((sorted(group), places))
    return sorted(group for group, _ in found)


def _without(program: Program, gone: set[int], groups: list[list[int]]) -> Program:
    """Drop merged terms and point the constraints at the boxes that took them in."""
    keep = [i for i in range(len(program.terms)) if i not in gone]
    home = {i: group[0] for group in groups for i in group}
    new = {old: k for k, old in enumerate(keep)}
    constraints = tuple(
        replace(c, terms=tuple(new[i if i in new else home[i]] for i in c.terms)) for c in program.constraints
    )
    return replace(program, terms=tuple(program.terms[i] for i in keep), constraints=constraints)


def _box(terms: list[Term], name: str, shape: Shape, layout: Layout, *, whole: bool) -> Term:
    """One box on the whole variable, or on the coordinates that the terms select."""
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
    if whole:
        arg = Affine(((name, Identity(shape)),), const(np.zeros(shape)))
        return Term("box", arg, origin, data=FrozenDict(lower=lower, upper=upper))
    index = freeze_index(_union(terms, start, layout))
    bounded = FrozenDict(lower=_pick(lower, index), upper=_pick(upper, index))
    return Term("box", Affine(((name, gather(index, shape)),), const(np.zeros(index.shape))), origin, data=bounded)


def _union(terms: list[Term], start: int, layout: Layout) -> IntArray:
    """The places in the variable: in the shape of the terms where they agree, else in order."""
    selections = [as_selection(term.arg, layout) for term in terms]
    found = [np.asarray(s.index - start) for s in selections if s is not None]
    if all(np.array_equal(found[0], other) for other in found[1:]):
        return found[0]
    return np.unique(np.concatenate([f.reshape(-1) for f in found]))


def _pick(bound: ParamExpr, index: IntArray) -> ParamExpr:
    if isinstance(bound, Const):
        return const(bound.dense().reshape(-1)[index])
    flat = Apply("reshape", (bound,), (size(bound.shape),), FrozenDict(order="C"))
    return Apply("gather", (flat,), index.shape, FrozenDict(index=index))


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
