"""A box whose constant bounds are [0, ∞) or (−∞, 0] is a sign constraint."""

from dataclasses import replace

import numpy as np

from opteq_cvx.ir.frozen import EMPTY
from opteq_cvx.ir.param import Const
from opteq_cvx.ir.program import Program, Term

NAMES = {(0.0, np.inf): "nonneg", (-np.inf, 0.0): "nonpos"}


def name_intervals(program: Program) -> Program:
    """Give boxes their simplest name: relu is cheaper than a clip."""
    return replace(program, terms=tuple(_named(t) for t in program.terms))


def _named(term: Term) -> Term:
    if term.atom != "box":
        return term
    bounds = tuple(_uniform(term.data[key]) for key in ("lower", "upper"))
    name = NAMES.get(bounds)  # type: ignore[arg-type]
    return term if name is None else replace(term, atom=name, data=EMPTY)


def _uniform(bound: object) -> float | None:
    """The value of a constant bound whose entries agree, else None."""
    if not isinstance(bound, Const) or not bound.dense().size:
        return None
    flat = bound.dense().reshape(-1)
    return float(flat[0]) if (flat == flat[0]).all() else None
