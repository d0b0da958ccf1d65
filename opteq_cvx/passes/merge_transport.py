"""Nonnegative entries with the row sums and the column sums of a grid become one set, the transport polytope."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import Array, FrozenDict, IntArray, size
from opteq_cvx.ir.layout import Layout, as_selection
from opteq_cvx.ir.param import Apply, Const, ParamExpr, add, const, multiply, neg
from opteq_cvx.ir.program import Origin, Program, Term
from opteq_cvx.passes.edit import Edit, rewrite
from opteq_cvx.passes.intervals import interval_bounds
from opteq_cvx.passes.rows import Sums, affine_of, sums

ROUNDING = 1e-12
"""Of a bound that the sums imply, relative to it."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Coordinates (m, n) of the layout, and the terms that give all their row sums and column sums.

    Of one of the two, the last sum may be missing: it follows from the others.
    """

    name: str
    index: IntArray
    rows: ParamExpr
    columns: ParamExpr
    terms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Family:
    """Disjoint sums of one length, of one term or of several: their terms, coordinates (k, length) and totals (k,)."""

    terms: tuple[int, ...]
    groups: IntArray
    totals: ParamExpr


def merge_transport(program: Program) -> Program:
    """Merge an interval term x ≥ 0 with the terms that fix the sums of its entries along the axes of a grid.

    The sums of an axis may come in one term or in several. Upper bounds that the sums imply are dropped. Runs after
    `merge_intervals` and before `merge_simplex`, which would take one of the two axes. An entropy of the entries says
    x ≥ 0, too; that is used where nothing but a linear function stands beside it, and the entropy stays.
    """
    layout = Layout.of(program)
    found = {i: s for i, t in enumerate(program.terms) if t.atom == "zero" and (s := _uniform(t, layout)) is not None}
    if len(found) < 2:
        return program
    edits: list[Edit] = []
    for i, term in enumerate(program.terms):
        entries = _nonnegative(term, layout)
        made = None if entries is None else _grid_of(program, found, entries[0])
        if made is not None and entries is not None and _implied(entries[1], entries[0], made):
            for used in made.terms:
                del found[used]
            edits.append(_edit(program, (*made.terms, i), made, layout))
    if edits:
        return rewrite(program, edits)
    index = _entropic(program, layout)
    made = None if index is None else _grid_of(program, found, index)
    if made is None or len(made.terms) != sum(t.atom == "zero" for t in program.terms):
        return program
    return rewrite(program, [_edit(program, made.terms, made, layout)])


def _entropic(program: Program, layout: Layout) -> IntArray | None:
    """All coordinates, where an entropy of all of them stands beside linear terms and equations only."""
    rest = [t for t in program.terms if t.atom not in ("linear", "zero")]
    if len(rest) != 1 or rest[0].atom != "neg_entr" or fixed_weight(rest[0]) is None:
        return None
    selection = as_selection(rest[0].arg, layout)
    if selection is None or not selection.plain or selection.index.size != layout.n:
        return None
    return np.asarray(selection.index).reshape(-1)


def fixed_weight(term: Term) -> float | None:
    """A term's weight where it is one positive number, known now."""
    if term.weight is None:
        return 1.0
    if not isinstance(term.weight, Const) or not term.weight.dense().size:
        return None
    flat = term.weight.dense().reshape(-1)
    return float(flat[0]) if (flat == flat[0]).all() and flat[0] > 0 else None


def _uniform(term: Term, layout: Layout) -> Sums | None:
    found = sums(term.arg, layout)
    return found if found is not None and found.uniform else None


def _nonnegative(term: Term, layout: Layout) -> tuple[IntArray, Array] | None:
    """The coordinates of a term that says 0 ≤ x, and constant upper bounds of them."""
    bounds, selection = interval_bounds(term), as_selection(term.arg, layout)
    if bounds is None or selection is None or not selection.plain:
        return None
    lower, upper = bounds
    if not isinstance(lower, Const) or not isinstance(upper, Const) or (lower.dense() != 0.0).any():
        return None
    index = np.asarray(selection.index)
    return index.reshape(-1), np.broadcast_to(upper.dense(), index.shape).reshape(-1)


def _implied(upper: Array, index: IntArray, made: Grid) -> bool:
    """Whether no entry can exceed its upper bound, as its row and its column have constant sums below it."""
    if (upper == np.inf).all():
        return True
    if not isinstance(made.rows, Const) or not isinstance(made.columns, Const):
        return False
    most = np.minimum(made.rows.dense(), made.columns.dense())
    order = np.argsort(index)
    at = order[np.searchsorted(index, made.index, sorter=order)]
    return bool((upper[at] >= most - ROUNDING * np.abs(most)).all())


def _grid_of(program: Program, found: dict[int, Sums], index: IntArray) -> Grid | None:
    """The first two of the families of sums that make a grid of exactly the coordinates `index`."""
    families = _families(program, found, index)
    for one in families:
        for other in families:
            made = None if one is other else _grid(one, other, found[one.terms[0]].name, index)
            if made is not None:
                return made
    return None


def _families(program: Program, found: dict[int, Sums], index: IntArray) -> list[_Family]:
    """Sums of entries of `index`, each in the first family whose sums are as long and share no entry with it."""
    families: list[_Family] = []
    for k, sums_ in found.items():
        groups, totals = _groups(sums_), _totals(program.terms[k], sums_)
        if not np.isin(groups, index).all():
            continue
        for i, known in enumerate(families):
            if known.groups.shape[1] == groups.shape[1] and not np.isin(groups, known.groups).any():
                both = np.vstack([known.groups, groups])
                families[i] = _Family((*known.terms, k), both, _joined_totals(known.totals, totals))
                break
        else:
            families.append(_Family((k,), groups, totals))
    return families


def _grid(one: _Family, other: _Family, name: str, index: IntArray) -> Grid | None:
    """The grid whose rows are the sums `one`, all of them, and whose columns are the sums `other`."""
    across, along = one.groups, other.groups
    n = across.shape[1]
    if across.size != index.size or not np.array_equal(np.sort(across.reshape(-1)), np.sort(index)):
        return None
    if along.shape[1] != across.shape[0] or along.shape[0] not in (n - 1, n) or n < 2:
        return None
    row = np.full(int(index.max()) + 1, -1)
    row[across] = np.arange(across.shape[0])[:, None]
    at = row[along]
    if not (np.sort(at, axis=1) == np.arange(across.shape[0])).all():
        return None
    columns = np.take_along_axis(along, np.argsort(at, axis=1), axis=1)
    r, c = one.totals, other.totals
    if len(along) == n - 1:
        left = np.setdiff1d(index, along)
        columns = np.vstack([columns, left[np.argsort(row[left])]])
        last = add(act.sum_over(r, (0,)), neg(act.sum_over(c, (0,))))
        c = _joined_totals(c, act.reshape(last, (1,)))
    rows, sums_ = act.reshape(r, (across.shape[0], 1)), act.reshape(c, (1, n))
    return Grid(name, np.ascontiguousarray(columns.T), rows, sums_, (*one.terms, *other.terms))


def _groups(found: Sums) -> IntArray:
    """The coordinates of each sum, a row for each."""
    moved = np.moveaxis(found.index, found.axes, range(-len(found.axes), 0))
    kept = moved.shape[: moved.ndim - len(found.axes)]
    return np.asarray(moved.reshape(size(kept), -1))


def _totals(term: Term, found: Sums) -> ParamExpr:
    """What the sums of the entries are, flat."""
    factor = found.uniform
    assert factor is not None
    flat = act.reshape(neg(term.arg.offset), (size(term.arg.shape),))
    return multiply(const(1.0 / factor), flat)


def _joined_totals(a: ParamExpr, b: ParamExpr) -> ParamExpr:
    if isinstance(a, Const) and isinstance(b, Const):
        return const(np.concatenate([a.dense(), b.dense()]))
    return Apply("hstack", (a, b), (a.shape[0] + b.shape[0],))


def _edit(program: Program, old: tuple[int, ...], made: Grid, layout: Layout) -> Edit:
    terms = [program.terms[k] for k in old]
    data = FrozenDict(rows=made.rows, columns=made.columns)
    new = Term("transport", affine_of(made.name, made.index, layout), joined(terms), data=data)
    return tuple(sorted(old)), (new,)


def joined(terms: Sequence[Term]) -> Origin:
    """The origins of several terms, as one."""
    return Origin(", ".join(t.origin.where for t in terms), "; ".join(t.origin.text for t in terms))
