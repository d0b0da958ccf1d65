"""Several |·| and (·)₊ on the same entries become one piecewise-linear function: scalene, quantile losses."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import FrozenDict, IntArray
from opteq_cvx.ir.layout import Layout, Selection, as_selection
from opteq_cvx.ir.linmap import Sum, compose, diagonal
from opteq_cvx.ir.param import Const, ParamExpr, add, const, multiply, neg
from opteq_cvx.ir.program import Affine, Origin, Program, Term
from opteq_cvx.passes.edit import Edit, rewrite
from opteq_cvx.passes.rows import affine_of, pick

PIECES = ("abs", "pos")


@dataclass(frozen=True, slots=True)
class Hinge:
    """weight · max(x − place, 0) + slope · (x − place), in the order of sorted coordinates."""

    place: ParamExpr
    weight: ParamExpr
    slope: ParamExpr | None


def merge_hinges(program: Program) -> Program:
    """Merge two or more abs and pos terms whose arguments are constant multiples of the same entries, plus offsets."""
    layout = Layout.of(program)
    groups: dict[bytes, list[tuple[int, Selection]]] = defaultdict(list)
    for i, term in enumerate(program.terms):
        selection = as_selection(term.arg, layout) if term.atom in PIECES else None
        if selection is not None and _factor(selection) is not None:
            groups[np.sort(selection.index.reshape(-1)).tobytes()].append((i, selection))
    edits = [_edit(program, members, layout) for members in groups.values() if len(members) > 1]
    return rewrite(program, edits)


def _factor(selection: Selection) -> np.ndarray | None:
    """The constant nonzero scale of each entry; None where it has parameters."""
    if selection.scale is None:
        return np.ones(selection.index.shape)
    if not isinstance(selection.scale, Const):
        return None
    scale = np.broadcast_to(selection.scale.dense(), selection.index.shape)
    return scale if (scale != 0).all() else None


def _edit(program: Program, members: list[tuple[int, Selection]], layout: Layout) -> Edit:
    first = members[0][1].index
    terms = [program.terms[i] for i, _ in members]
    hinges = [_hinge(t, s, first) for t, (_, s) in zip(terms, members, strict=True)]
    name = terms[0].arg.parts[0][0]
    arg = affine_of(name, first, layout)
    where = ", ".join(dict.fromkeys(t.origin.where for t in terms))
    origin = Origin(where, " + ".join(dict.fromkeys(t.origin.text for t in terms)))
    data = {}
    for k, hinge in enumerate(hinges):
        data[f"c{k}"] = act.spread(hinge.place, first.shape)
        data[f"w{k}"] = act.spread(hinge.weight, first.shape)
    merged = Term("hinges", arg, origin, static=FrozenDict(count=len(hinges)), data=FrozenDict(data))
    return tuple(i for i, _ in members), (merged, *_linear(hinges, arg, origin))


def _hinge(term: Term, selection: Selection, order: IntArray) -> Hinge:
    """w|sx + b| = 2w|s| max(x − c, 0) − w|s| (x − c) and w (sx + b)₊ with its sign, c = −b/s."""
    scale = _factor(selection)
    assert scale is not None  # chosen by the caller
    shape = selection.index.shape
    place = multiply(const(-1.0 / scale), act.spread(selection.offset, shape))
    given = act.spread(term.weight if term.weight is not None else const(1.0), shape)
    weight = multiply(const(np.abs(scale)), given)
    if term.atom == "abs":
        slope: ParamExpr | None = neg(weight)
        weight = multiply(const(2.0), weight)
    else:
        slope = None if (scale > 0).all() else multiply(const(np.where(scale < 0, -1.0, 0.0)), weight)
    flat = selection.index.reshape(-1)
    sorting = np.argsort(flat)
    at = np.asarray(sorting[np.searchsorted(flat, order, sorter=sorting)])
    return Hinge(pick(place, at), pick(weight, at), None if slope is None else pick(slope, at))


def _linear(hinges: list[Hinge], arg: Affine, origin: Origin) -> tuple[Term, ...]:
    """Σ slope (x − place) as one linear term."""
    some = [h for h in hinges if h.slope is not None]
    if not some:
        return ()
    shape, everything = arg.shape, tuple(range(len(arg.shape)))
    slopes = [h.slope for h in some if h.slope is not None]
    total = add(*slopes)
    offset = neg(add(*(act.inner(s, h.place) for s, h in zip(slopes, some, strict=True))))
    name, picked = arg.parts[0]
    functional = compose(Sum(everything, shape), compose(diagonal(act.spread(total, shape), shape), picked))
    if not everything:
        functional = compose(diagonal(total, ()), picked)
    return (Term("linear", Affine(((name, functional),), act.reshape(offset, ())), origin),)
