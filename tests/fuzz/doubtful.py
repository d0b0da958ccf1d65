"""Where the exact solver's status is one of two that are right, or the limit of one: what decides is solved, too."""

import warnings
from collections.abc import Sequence

import cvxpy as cp
import numpy as np
from cvxpy.constraints import Equality, Inequality

from opteq_cvx.verify.values import dense

SLACK = 1e-3  # beyond the least shift that makes a program feasible, relative
SHIFTS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # of the right-hand sides
REACHES = (1e1, 1e2, 1e3, 1e4, 1e5)  # of boxes
ENOUGH = 3  # of them have to be solved
EXACT = 1e-10  # of violations, by evaluation
GROWING = 0.5  # share of its last slope, in the logarithm of the shift, by which a value that tends to infinity grows


def has_ray(problem: cp.Problem) -> bool:
    """Whether an infeasible program has a direction along which its objective falls for ever, by the exact solver.

    Nonempty level sets of a closed convex function have one recession cone: the program with right-hand sides shifted
    until it is feasible has the rays of this one.
    """
    extra = [cp.Variable(c.args[0].shape if c.args else ()) for c in problem.constraints]
    size = sum(cp.sum(cp.abs(s)) for s in extra)
    nearest = cp.Problem(cp.Minimize(size), shifted(problem, extra))
    if _status(nearest) != "optimal":
        return False
    more = [SLACK * (1.0 + abs(dense(s.value))) * isinstance(c, Inequality) for c, s in _pairs(problem, extra)]
    moves = [dense(s.value) + m for s, m in zip(extra, more, strict=True)]
    feasible = cp.Problem(problem.objective, shifted(problem, moves))
    return _status(feasible) == "unbounded" or falls_for_ever(feasible)


def falls_for_ever(problem: cp.Problem) -> bool:
    """Whether the optimal value within a box falls as the box grows, from decade to decade by no less than half.

    So −log x and −√x do, whose slope tends to 0, which no ray shows; eˣ and 1/x, which tend to a bound, do not.
    """
    sign, found = 1.0 if isinstance(problem.objective, cp.Minimize) else -1.0, []
    for reach in REACHES:
        inside = [bound for v in problem.variables() for bound in (v <= reach, v >= -reach)]
        other = cp.Problem(problem.objective, [*problem.constraints, *inside])
        if _status(other) == "optimal":
            found.append(sign * float(other.value))
    falls = -np.diff(found)
    return len(found) >= ENOUGH and bool((falls > EXACT).all() and (falls[1:] > GROWING * falls[:-1]).all())


def has_no_point(problem: cp.Problem) -> bool:
    """Whether the exact solver proves that no point satisfies the constraints, whatever the objective."""
    return _status(cp.Problem(cp.Minimize(0), problem.constraints)) == "infeasible"


def only_in_the_limit(problem: cp.Problem) -> bool:
    """Whether the optimal value tends to infinity as shifts of the inequalities go to 0: then no point is feasible.

    So it is where the only points left lie on the edge of the objective's domain, and the objective is infinite there,
    as log x beside x ≤ 0. The exact solver calls what satisfies its tolerances optimal.
    """
    sign, found = 1.0 if isinstance(problem.objective, cp.Minimize) else -1.0, []
    for shift in SHIFTS:
        moves = [np.full(c.args[0].shape, shift) * isinstance(c, Inequality) for c in problem.constraints]
        other = cp.Problem(problem.objective, shifted(problem, moves))
        if _status(other) == "optimal":
            found.append((-np.log(shift), sign * float(other.value)))
    if len(found) < ENOUGH:
        return False
    along, values = np.array(found).T
    slopes = np.diff(values) / np.diff(along)
    return bool((slopes > 0).all() and (slopes[1:] > GROWING * slopes[:-1]).all())


def has_feasible_point(problem: cp.Problem) -> bool:
    """Whether a point is found, and shown by evaluating it, at which all constraints hold and the objective is finite.

    The exact solver looks for the point that satisfies the inequalities, those of the domain too, by the most.
    """
    try:
        inside = list(problem.objective.expr.domain)
    except NotImplementedError:
        return False
    t = cp.Variable()
    both = cp.Problem(problem.objective, [*problem.constraints, *inside])
    if _status(cp.Problem(cp.Minimize(t), [*shifted(both, [t] * len(both.constraints), equal=False), t >= -1])) not in (
        "optimal",
        "optimal_inaccurate",
    ):
        return False
    for variable in problem.variables():
        if variable.value is None:  # in no constraint
            variable.save_value(np.zeros(variable.shape))
    worst = max((float(np.abs(dense(c.violation())).max(initial=0.0)) for c in both.constraints), default=0.0)
    return worst <= EXACT and bool(np.isfinite(problem.objective.value))


def shifted(problem: cp.Problem, moves: Sequence[object], *, equal: bool = True) -> list[cp.Constraint]:
    """a ≤ b + s and, if `equal`, a = b + s for the moves s; other constraints as they are."""
    out: list[cp.Constraint] = []
    for c, s in _pairs(problem, moves):
        match c:
            case Inequality():
                out.append(c.args[0] <= c.args[1] + s)
            case Equality() if equal:
                out.append(c.args[0] == c.args[1] + s)
            case _:
                out.append(c)
    return out


def _pairs(problem: cp.Problem, moves: Sequence[object]) -> list[tuple[cp.Constraint, object]]:
    return list(zip(problem.constraints, moves, strict=True))


def _status(problem: cp.Problem) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            problem.solve(solver="CLARABEL", ignore_dpp=True)
        except Exception:  # Clarabel raises this very class where CVXPY 1.9 counts the rows of a cone wrongly
            return "error"
    return str(problem.status)
