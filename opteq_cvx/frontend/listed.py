"""What a user lists: several things in a list, of the kind that is asked for."""

from collections.abc import Sequence
from typing import Any

import cvxpy as cp

from opteq_cvx.errors import CompileError, message
from opteq_cvx.frontend.scope import text


def as_list(given: Any, argument: str) -> tuple[Any, ...] | None:
    """The entries of a list of expressions, None where none is given.

    Raises:
        CompileError: one expression in place of a list. Python iterates over its entries, and over none of a scalar.
    """
    if isinstance(given, cp.Expression | cp.constraints.constraint.Constraint):
        kind = "expression" if isinstance(given, cp.Expression) else "constraint"
        found = f"{argument} is the {kind} {text(given)}"
        raise CompileError(message(found, "a list of them", f"write {argument}=[{text(given)}]"))
    return None if given is None else tuple(given)


def gathered(problem: Any) -> tuple[cp.Problem, ...]:
    """One problem or several, as a tuple.

    Raises:
        CompileError: the list is empty or holds something else.
    """
    if isinstance(problem, cp.Problem):
        return (problem,)
    if not isinstance(problem, Sequence):
        what = type(problem).__name__
        found = f"{'an' if what[0] in 'aeiouAEIOU' else 'a'} {what} in place of a problem"
        raise CompileError(message(found, "a cvxpy.Problem, or a list of them", "wrap it in cp.Problem(...)"))
    for one in problem:
        if not isinstance(one, cp.Problem):
            found = f"a {type(one).__name__} among the problems"
            raise CompileError(message(found, "a cvxpy.Problem, or a list of them", "wrap it in cp.Problem(...)"))
    if not problem:
        raise CompileError(message("no problem", "at least one", "pass a cvxpy.Problem"))
    return tuple(problem)
