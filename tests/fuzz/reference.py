"""The exact solver's answer to one sample: CVXPY with Clarabel, canonicalized once for all samples where it is DPP."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import cvxpy as cp
import numpy as np

from opteq_cvx.ir.frozen import Array
from opteq_cvx.verify.answer import ExactStatus
from opteq_cvx.verify.exact import solve_exact
from opteq_cvx.verify.modelled import formless
from tests.fuzz.builder import dense

TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
HELD = 1e-6  # by which a reference's point may violate constraints, relative
SURE = ("optimal", "infeasible", "unbounded")
GAPS = (NotImplementedError, AssertionError)
"""What CVXPY 1.9 raises where it cannot canonicalize: a `cumsum` inside a `quad_form`, for one."""
STATUS = {ExactStatus.OPTIMAL: "optimal", ExactStatus.INFEASIBLE: "infeasible", ExactStatus.UNBOUNDED: "unbounded"}


@dataclass(frozen=True)
class Reference:
    """CVXPY's status, "error" where the solver fails; with "optimal" the objective and each variable's value."""

    status: str
    value: float = float("nan")
    points: Mapping[str, Array] = field(default_factory=dict)

    @property
    def reach(self) -> float:
        """The largest entry of the point."""
        return max((float(np.abs(p).max(initial=0.0)) for p in self.points.values()), default=0.0)


def reference(problem: cp.Problem, *, again: bool) -> Reference:
    """Solve at the present values of the parameters; `again`, it will be solved at others, too."""
    if formless(problem):  # activations that have no cone form: Newton steps, each an exact solve
        return polished(problem)
    once = again and problem.is_dcp(dpp=True)
    for options in (TIGHT, {}):
        for variable in problem.variables():
            variable.save_value(None)  # CVXPY's sum_largest of a matrix fails where there are values to start from
        try:
            problem.solve(solver="CLARABEL", ignore_dpp=not once, **options)
        except (cp.error.SolverError, *GAPS):  # the problem keeps the status of its last solve
            continue
        if problem.status in SURE and not np.isnan(problem.value):  # rounding has left the domain
            points = {v.name(): np.asarray(dense(v.value)) for v in problem.variables() if v.value is not None}
            return Reference(str(problem.status), float(problem.value), points)
    return polished(problem)


def polished(problem: cp.Problem) -> Reference:
    """The answer at the first of several tolerances that is reached, polished on its active set."""
    try:
        exact = solve_exact(problem, problem.variables())
    except GAPS:
        return Reference("error")
    status = STATUS.get(exact.status, "error")
    if status == "optimal" and not np.isfinite(exact.objective):
        return Reference("error")
    names = [v.name() for v in problem.variables()]
    return Reference(status, exact.objective, dict(zip(names, exact.variables, strict=False)))


def in_units(problem: cp.Problem, size: float) -> Reference:
    """The answer with the objective divided by `size`, an equal program that rounding treats otherwise.

    With objectives of 1e9 and more Clarabel calls points optimal that violate bounds by a third, and cones that it
    approximates roots with may leave a value that its own point does not have: the value is that of the point.
    """
    other = cp.Problem(type(problem.objective)(problem.objective.expr / size), problem.constraints)
    found = reference(other, again=False)
    if found.status != "optimal":
        return found
    for variable in problem.variables():
        variable.save_value(found.points[variable.name()])
    value, broken = problem.objective.value, max((violation(c) for c in problem.constraints), default=0.0)
    if not (np.isfinite(value) and broken <= HELD):
        return Reference("error")
    return Reference("optimal", float(value), found.points)


def violation(c: cp.Constraint) -> float:
    """By how much a constraint is violated, relative to its arguments; inf outside of the domain of one."""
    sides = max((float(np.abs(dense(a.value)).max(initial=0.0)) for a in c.args), default=0.0)
    worst = float(np.max(np.abs(dense(c.violation())), initial=0.0)) / max(1.0, sides)
    return np.inf if np.isnan(worst) else worst


def distance(problem: cp.Problem) -> float:
    """How far the variables' values are from the feasible set, the largest relative change of a variable; or inf.

    A constraint may change much where its argument changes little (a logarithm near 0). The norm itself is minimized:
    its square, found to 1e-10, would tell it to 1e-5 only.
    """
    variables = problem.variables()
    here = [np.asarray(dense(v.value)) for v in variables]
    goal = cp.norm(cp.hstack([cp.vec(v - p, order="C") for v, p in zip(variables, here, strict=True)]))
    found = solve_exact(cp.Problem(cp.Minimize(goal), problem.constraints), variables)
    if not found.status.solved:
        return float("inf")
    pairs = zip(found.outputs, here, strict=True)
    return max(float(np.abs(a - b).max(initial=0.0)) / max(1.0, float(np.abs(b).max(initial=0.0))) for a, b in pairs)
