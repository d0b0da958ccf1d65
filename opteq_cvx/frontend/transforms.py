"""CVXPY's transforms that hold constraints: indicators and partially optimized problems.

By the rules of DCP they occur where larger is worse, so that their constraints may stand beside the others: an
indicator is then 0, and a partial optimum is its objective, minimized over all variables together.
"""

from typing import Any

import cvxpy as cp
from cvxpy.transforms.indicator import indicator
from cvxpy.transforms.partial_optimize import PartialProblem


def expand(problem: cp.Problem) -> tuple[cp.Problem, int]:
    """The problem without such transforms, their constraints after the user's own; and how many those are."""
    found = _transforms([problem.objective, *problem.constraints])
    if not found:
        return problem, 0
    known: dict[int, Any] = {}
    more: list[Any] = []
    for transform in found:  # inner ones first
        inner = transform.args if isinstance(transform, indicator) else transform.args[0].constraints
        more.extend(c.tree_copy(dict(known)) for c in inner)
        if isinstance(transform, indicator):
            known[id(transform)] = cp.Constant(0.0)
        else:
            known[id(transform)] = _replaced(transform.args[0].objective.args[0], known)
    objective = type(problem.objective)(_replaced(problem.objective.args[0], known))
    kept = [c if not _transforms([c]) else c.tree_copy(dict(known)) for c in problem.constraints]
    return cp.Problem(objective, [*kept, *more]), len(more)


def _replaced(expr: Any, known: dict[int, Any]) -> Any:
    return known[id(expr)] if id(expr) in known else expr.tree_copy(dict(known))


def _transforms(roots: list[Any]) -> list[Any]:
    """The transforms below expressions and constraints, inner ones before outer ones, each once."""
    found: dict[int, Any] = {}

    def visit(node: Any) -> None:
        if isinstance(node, list | tuple):
            for each in node:
                visit(each)
            return
        if isinstance(node, cp.Problem):
            visit([node.objective, *node.constraints])
            return
        if id(node) in found:
            return
        visit(node.args)
        if isinstance(node, indicator | PartialProblem):
            found[id(node)] = node

    visit(roots)
    return list(found.values())
