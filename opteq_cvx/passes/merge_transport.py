"""Nonnegative entries with the row sums and the column sums of a grid become one set, the transport polytope."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import FrozenDict, IntArray, size
from opteq_cvx.ir.layout import Layout, as_selection
from opteq_cvx.ir.param import Apply, Const, ParamExpr, add, const, multiply, neg
from opteq_cvx.ir.program import Origin, Program, Term
from opteq_cvx.passes.edit import Edit, rewrite
from opteq_cvx.passes.intervals import interval_bounds
from opteq_cvx.passes.rows import Sums, affine_of, sums


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


def merge_transport(program: Program) -> Program:
    """Merge an interval term x ≥ 0 with two terms that fix the sums of its entries along the axes of a grid.

    Runs after `merge_intervals` and before `merge_simplex`, which would take one of the two. An entropy of the entries
    says x ≥ 0, too; that is used where nothing but a linear function stands beside it, and the entropy stays.
    """
    layout = Layout.of(program)
    found = {i: s for i, t in enumerate(program.terms) if t.atom == "zero" and (s := _uniform(t, layout)) is not None}
    if len(found) < 2:
        return program
    edits: list[Edit] = []
    for i, term in enumerate(program.terms):
        index = _nonnegative(term, layout)
        made = None if index is None else _grid_of(program, found, index)
        if made is not None:
            for used in made.terms:
                del found[used]
            edits.append(_edit(program, (*made.terms, i), made, layout))
    if edits:
        return rewrite(program, edits)
    index = _entropic(program, layout)
    made = None if index is None else _grid_of(program, found, index)
    return program if made is None else rewrite(program, [_edit(program, made.terms, made, layout)])


def _entropic(program: Program, layout: Layout) -> IntArray | None:
    """All coordinates, where an entropy of all of them stands beside linear terms and two others only."""
    rest = [t for t in program.terms if t.atom != "linear"]
    entropy = [t for t in rest if t.atom == "neg_entr"]
    if len(rest) != 3 or len(entropy) != 1 or fixed_weight(entropy[0]) is None:
        return None
    selection = as_selection(entropy[0].arg, layout)
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


def _nonnegative(term: Term, layout: Layout) -> IntArray | None:
    """The coordinates of a term that says 0 ≤ x and no more."""
    bounds, selection = interval_bounds(term), as_selection(term.arg, layout)
    if bounds is None or selection is None or not selection.plain:
        return None
    lower, upper = bounds
    plain = isinstance(lower, Const) and isinstance(upper, Const)
    if not plain or (lower.dense() != 0.0).any() or (upper.dense() != np.inf).any():  # type: ignore[union-attr]
        return None
    return np.asarray(selection.index).reshape(-1)


def _grid_of(program: Program, found: dict[int, Sums], index: IntArray) -> Grid | None:
    """The first two of the sums that make a grid of exactly the coordinates `index`."""
    known = list(found)
    for one in known:
        for other in known:
            if one != other and found[one].name == found[other].name:
                made = _grid(program, one, other, found, index)
                if made is not None:
                    return made
    return None


def _grid(program: Program, one: int, other: int, found: dict[int, Sums], index: IntArray) -> Grid | None:
    """The grid whose rows are the sums `one`, all of them, and whose columns are the sums `other`."""
    across, along = (_groups(found[k]) for k in (one, other))
    n = across.shape[1]
    if across.size != index.size or not np.array_equal(np.sort(across.reshape(-1)), np.sort(index)):
        return None
    if along.shape[1] != across.shape[0] or along.shape[0] not in (n - 1, n) or n < 2:
        return None
    row = np.full(int(index.max()) + 1, -1)
    row[across] = np.arange(across.shape[0])[:, None]
    if not np.isin(along, index).all():
        return None
    at = row[along]
    if not (np.sort(at, axis=1) == np.arange(across.shape[0])).all():
        return None
    columns = np.take_along_axis(along, np.argsort(at, axis=1), axis=1)
    r, c = (_totals(program.terms[k], found[k]) for k in (one, other))
    if len(along) == n - 1:
        left = np.setdiff1d(index, along)
        columns = np.vstack([columns, left[np.argsort(row[left])]])
        c = _completed(c, add(act.sum_over(r, (0,)), neg(act.sum_over(c, (0,)))))
    rows, sums_ = act.reshape(r, (across.shape[0], 1)), act.reshape(c, (1, n))
    return Grid(found[one].name, np.ascontiguousarray(columns.T), rows, sums_, (one, other))


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


def _completed(some: ParamExpr, last: ParamExpr) -> ParamExpr:
    if isinstance(some, Const) and isinstance(last, Const):
        return const(np.append(some.dense(), last.dense()))
    return Apply("hstack", (some, act.reshape(last, (1,))), (some.shape[0] + 1,))


def _edit(program: Program, old: tuple[int, ...], made: Grid, layout: Layout) -> Edit:
    terms = [program.terms[k] for k in old]
    data = FrozenDict(rows=made.rows, columns=made.columns)
    new = Term("transport", affine_of(made.name, made.index, layout), joined(terms), data=data)
    return tuple(sorted(old)), (new,)


def joined(terms: Sequence[Term]) -> Origin:
    """The origins of several terms, as one."""
    return Origin(", ".join(t.origin.where for t in terms), "; ".join(t.origin.text for t in terms))
