"""CVXPY's own reductions before reading: parameter values, geometric and complex programs, constant constraints."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy import error, settings
from cvxpy.reductions.complex2real.complex2real import Complex2Real
from cvxpy.reductions.dgp2dcp.dgp2dcp import Dgp2Dcp
from cvxpy.reductions.eval_params import EvalParams
from cvxpy.reductions.solution import Solution

Invert = Callable[[Solution], Solution]


@dataclass(frozen=True, slots=True)
class Reduced:
    """A real DCP problem, the way back, and whether a constraint without variables is violated."""

    problem: cp.Problem
    invert: Invert
    violated: bool


def reduce(problem: cp.Problem, *, gp: bool = False) -> Reduced:
    """Fix the parameters, take the logarithm of a geometric program, split complex values.

    Raises:
        cvxpy.error.ParameterError: a parameter has no value.
        cvxpy.error.DGPError: `gp` and the problem is not geometric.
        cvxpy.error.DCPError: not convex.
    """
    steps: list[tuple[Any, Any]] = []

    def take(step: Any) -> None:
        nonlocal problem
        problem, inverse = step.apply(problem)
        steps.append((step, inverse))

    if gp and not problem.is_dgp():
        raise error.DGPError(f"the problem does not follow the DGP rules:\n{problem}")
    if gp:  # first: it takes the logarithms of the parameters' values, too
        take(Dgp2Dcp())
    take(EvalParams())
    if Complex2Real().accepts(problem):
        if not problem.is_dcp():
            raise error.DCPError(f"the problem does not follow the DCP rules:\n{problem}")
        take(Complex2Real())

    def invert(solution: Solution) -> Solution:
        if solution.status in settings.SOLUTION_PRESENT:
            solution.dual_vars = {**idle, **solution.dual_vars}
        for step, inverse in reversed(steps):
            solution = step.invert(solution, inverse)
        return solution

    kept, violated = [], False
    idle: dict[int, Any] = {}  # the multipliers of constraints that hold no variable
    for constraint in problem.constraints:
        if constraint.variables():
            kept.append(constraint)
        else:
            violated = violated or not bool(constraint.value())
            if len(constraint.dual_variables) == 1:
                idle[constraint.id] = np.zeros(constraint.shape)
    return Reduced(cp.Problem(problem.objective, kept), invert, violated)


def failure(problem: cp.Problem, status: str, attributes: dict[str, Any]) -> Solution:
    """The solution of an infeasible or unbounded problem, with the value that CVXPY gives it."""
    infinite = float("inf") if status == settings.INFEASIBLE else -float("inf")
    value = -infinite if isinstance(problem.objective, cp.Maximize) else infinite
    return Solution(status, value, {}, {}, attributes)
