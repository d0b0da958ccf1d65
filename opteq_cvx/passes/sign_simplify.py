"""|u| = u where u ≥ 0 is a constraint: an ℓ1 term on a nonnegative variable becomes linear (an activation prior)."""

from dataclasses import replace

import numpy as np

from opteq_cvx.ir.frozen import IntArray
from opteq_cvx.ir.layout import Layout, as_selection
from opteq_cvx.ir.linmap import Sum, compose, diagonal
from opteq_cvx.ir.param import Const, broadcast_to, const
from opteq_cvx.ir.program import Affine, Program, Term
from opteq_cvx.passes.intervals import interval_bounds

ABSOLUTE = ("abs", "pos")


def sign_simplify(program: Program) -> Program:
    """Replace weighted |·| and (·)₊ of coordinates known to be nonnegative by a linear term."""
    layout = Layout.of(program)
    known = _nonnegative(program, layout)
    return replace(program, terms=tuple(_simplify(t, layout, known) for t in program.terms))


def _nonnegative(program: Program, layout: Layout) -> IntArray:
    found = [np.zeros(0, dtype=np.int64)]
    for term in program.terms:
        bounds, selection = interval_bounds(term), as_selection(term.arg, layout)
        if bounds is None or selection is None or not selection.plain:
            continue
        lower = bounds[0]
        if isinstance(lower, Const):
            nonneg = np.broadcast_to(lower.dense() >= 0, selection.index.shape)
            found.append(selection.index[nonneg])
    return np.unique(np.concatenate(found))


def _simplify(term: Term, layout: Layout, known: IntArray) -> Term:
    if term.atom not in ABSOLUTE:
        return term
    selection = as_selection(term.arg, layout)
    if selection is None or not selection.plain or not np.isin(selection.index, known).all():
        return term
    name, linear = term.arg.parts[0]
    shape = linear.shape_out
    weight = broadcast_to(term.weight, shape) if term.weight is not None else const(np.ones(shape))
    total = compose(Sum(tuple(range(len(shape))), shape), compose(diagonal(weight, shape), linear))
    arg = Affine(((name, total),), const(0.0))
    return Term("linear", arg, term.origin)
