"""Bounds and a sum on the same entries become one set: a simplex, or a box cut by a hyperplane or a half-space."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import FrozenDict, IntArray
from opteq_cvx.ir.layout import Layout, as_selection
from opteq_cvx.ir.param import Const, ParamExpr, const, multiply, neg
from opteq_cvx.ir.program import Origin, Program, Term
from opteq_cvx.passes.edit import Edit, rewrite
from opteq_cvx.passes.intervals import interval_bounds
from opteq_cvx.passes.rows import Sums, affine_of, pick, sums

RELATION = {"zero": 0, "nonpos": 1, "nonneg": -1}
"""Atom of a term on a sum: 0 for = 0, else the sign s of s·sum ≤ 0."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """An interval term on distinct coordinates, its bounds in the shape of `index`."""

    term: int
    index: IntArray
    lower: ParamExpr
    upper: ParamExpr


def merge_simplex(program: Program) -> Program:
    """Merge each sum of entries with the one interval term that bounds them all; each sum takes its entries.

    Runs after `merge_intervals`. Entries of the interval term that no sum takes keep their bounds.
    """
    layout = Layout.of(program)
    intervals = [b for b in (_bounds(i, t, layout) for i, t in enumerate(program.terms)) if b is not None]
    taken: dict[int, list[tuple[int, Sums]]] = defaultdict(list)
    for i, term in enumerate(program.terms):
        found = sums(term.arg, layout) if term.atom in RELATION else None
        home = None if found is None else next((b for b in intervals if _covers(b, found, taken)), None)
        if found is not None and home is not None:
            taken[home.term].append((i, found))
    by_term = {b.term: b for b in intervals}
    return rewrite(program, [_edit(program, by_term[k], each, layout) for k, each in taken.items()])


def _bounds(i: int, term: Term, layout: Layout) -> Bounds | None:
    found, selection = interval_bounds(term), as_selection(term.arg, layout)
    if found is None or selection is None or not selection.plain:
        return None
    shape = selection.index.shape
    return Bounds(i, selection.index, act.spread(found[0], shape), act.spread(found[1], shape))


def _covers(bounds: Bounds, found: Sums, taken: Mapping[int, list[tuple[int, Sums]]]) -> bool:
    used = [other.index.reshape(-1) for _, other in taken.get(bounds.term, ())]
    free = np.setdiff1d(bounds.index, np.concatenate([np.zeros(0, dtype=np.int64), *used]))
    return bool(np.isin(found.index, free).all())


def _edit(program: Program, bounds: Bounds, each: list[tuple[int, Sums]], layout: Layout) -> Edit:
    merged = tuple(_merged(program.terms[i], program.terms[bounds.term], found, bounds, layout) for i, found in each)
    used = np.concatenate([found.index.reshape(-1) for _, found in each])
    rest = np.setdiff1d(bounds.index, used)
    name = each[0][1].name
    old = program.terms[bounds.term]
    left = (_box(affine_index, bounds, name, old.origin, layout) for affine_index in ([rest] if rest.size else []))
    return tuple(sorted([bounds.term, *(i for i, _ in each)])), (*merged, *left)


def _box(index: IntArray, bounds: Bounds, name: str, origin: Origin, layout: Layout) -> Term:
    lower, upper = _at(index, bounds)
    return Term("box", affine_of(name, index, layout), origin, data=FrozenDict(lower=lower, upper=upper))


def _at(index: IntArray, bounds: Bounds) -> tuple[ParamExpr, ParamExpr]:
    """The bounds of the entries `index`, in its shape."""
    flat = bounds.index.reshape(-1)
    order = np.argsort(flat)
    place = order[np.searchsorted(flat, index, sorter=order)]
    return pick(bounds.lower, place), pick(bounds.upper, place)


def _merged(term: Term, interval: Term, found: Sums, bounds: Bounds, layout: Layout) -> Term:
    origin = Origin(f"{term.origin.where}, {interval.origin.where}", f"{term.origin.text}; {interval.origin.text}")
    arg = affine_of(found.name, found.index, layout)
    lower, upper = _at(found.index, bounds)
    total = act.reshape(neg(term.arg.offset), found.reduced)
    sign, each = RELATION[term.atom], found.uniform
    axes = found.axes
    if sign == 0 and each is not None and each != 0 and _is(lower, 0.0) and _is(upper, np.inf):
        data = FrozenDict(total=multiply(const(1.0 / each), total))
        return Term("simplex", arg, origin, static=FrozenDict(axes=axes), data=data)
    normal = found.coefficients
    if sign < 0:
        normal, total = neg(normal), neg(total)
    data = FrozenDict(lower=lower, upper=upper, normal=normal, total=total)
    return Term("box_plane", arg, origin, static=FrozenDict(axes=axes, below=sign != 0), data=data)


def _is(bound: ParamExpr, value: float) -> bool:
    return isinstance(bound, Const) and bool((bound.dense() == value).all())
