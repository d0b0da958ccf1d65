"""Interval terms (nonneg, nonpos, box) read as lower and upper bounds."""

import numpy as np

from opteq_cvx.ir.param import ParamExpr, const
from opteq_cvx.ir.program import Term

INTERVALS = ("nonneg", "nonpos", "box")


def interval_bounds(term: Term) -> tuple[ParamExpr, ParamExpr] | None:
    """(lower, upper) of an interval term, each broadcasting to its argument; None for other terms."""
    match term.atom:
        case "nonneg":
            return const(0.0), const(np.inf)
        case "nonpos":
            return const(-np.inf), const(0.0)
        case "box":
            return term.data["lower"], term.data["upper"]
        case _:
            return None
