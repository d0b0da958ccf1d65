"""A problem with a second objective: read as one program F + εω, and as F alone with the parameters of both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cvxpy as cp

from opteq_cvx.errors import CompileError, NotConvexError, message
from opteq_cvx.frontend.declaration import Declaration
from opteq_cvx.frontend.names import addends
from opteq_cvx.frontend.read import Reading, read
from opteq_cvx.frontend.scope import text
from opteq_cvx.ir.linmap import Identity
from opteq_cvx.ir.param import Const
from opteq_cvx.ir.program import Program, Term
from opteq_cvx.passes.edit import rewrite
from opteq_cvx.selection import EPSILON, RIDGE

CVX: Any = cp
SMOOTH = ("square", "quad_form", "linear")


@dataclass(frozen=True, slots=True)
class SelectedReading:
    """What `read_selected` returns.

    reading: F with the parameters of F and ω, and the user's objects.
    program: F + εω (+ ½ρ‖u‖²).
    text: ω in the user's words; summand: its place among the summands of the objective.
    strong, quadratic, isotropic: ω is strongly convex by its form; a quadratic; a multiple of ‖u − r‖².
    """

    reading: Reading
    program: Program
    text: str
    summand: int
    strong: bool
    quadratic: bool
    isotropic: bool


def read_selected(
    problem: cp.Problem,
    select: cp.Minimize | cp.Maximize,
    inputs: Sequence[cp.Parameter] | None = None,
    outputs: Sequence[cp.Expression] | None = None,
) -> SelectedReading:
    """Read a problem and the objective that chooses among its solutions.

    Raises:
        CompileError: as `read` does; `select` is no objective, or holds variables that the problem lacks.
        NotConvexError: `select` breaks a DCP rule.
    """
    omega = second_objective(problem, select)
    epsilon, rho = cp.Parameter(nonneg=True, name=EPSILON), cp.Parameter(nonneg=True, name=RIDGE)
    alone = read(cp.Problem(cp.Minimize(omega)), inputs).program
    strong, quadratic, isotropic = _kind(alone, omega, problem)
    extra: Any = epsilon * omega
    added = [epsilon] if strong else [epsilon, rho]
    if not strong:
        extra = extra + rho * sum(0.5 * CVX.sum_squares(v) for v in problem.variables())
    maximize = isinstance(problem.objective, cp.Maximize)
    own: Any = problem.objective.args[0]
    goal = cp.Maximize(own - extra) if maximize else cp.Minimize(own + extra)
    wanted = tuple(problem.variables()) if outputs is None else outputs
    both = read(cp.Problem(goal, problem.constraints), [*(inputs or ()), *added], wanted)
    plain = read(problem, inputs, outputs)
    if plain.program.dual_outputs:
        found, fix = "a dual variable among the outputs", "compile without select=: multipliers do not depend on it"
        raise CompileError(message(found, "variables and affine expressions", fix))
    names = {p.name() for p in added}
    first = replace(
        _without(both.program, len(addends(own)), plain.program),
        parameters=tuple(p for p in both.program.parameters if p.name not in names),
    )
    kept = tuple(p for p in both.declaration.inputs if p.name() not in names)
    declaration = Declaration((problem,), kept, both.declaration.weights, plain.declaration.outputs, select=select)
    reading = Reading(first, both.initial, declaration)
    return SelectedReading(reading, both.program, text(omega), len(addends(own)), strong, quadratic, isotropic)


def second_objective(problem: cp.Problem, select: Any) -> Any:
    """The convex expression to minimize over the solution set.

    Raises:
        CompileError: `select` is no objective, or holds variables that the problem lacks.
        NotConvexError: it breaks a DCP rule.
    """
    if not isinstance(select, cp.Minimize | cp.Maximize):
        found = f"select={type(select).__name__}"
        raise CompileError(message(found, "cp.Minimize(...) or cp.Maximize(...)", "wrap the expression in cp.Minimize"))
    expr: Any = select.args[0]
    omega = -expr if isinstance(select, cp.Maximize) else expr
    if not omega.is_convex():
        found = f'the second objective "{text(expr)}" is {str(expr.curvature).lower()}'
        raise NotConvexError(message(found, "a convex function to minimize", "select by a norm or a quadratic"))
    known = {id(v) for v in problem.variables()}
    for v in omega.variables():
        if id(v) not in known:
            found = f"the second objective holds {v.name()!r}, which is no variable of the problem"
            raise CompileError(message(found, "variables of the problem", "select by the problem's own variables"))
    return omega


def _kind(alone: Program, omega: Any, problem: cp.Problem) -> tuple[bool, bool, bool]:
    """Whether ω is strongly convex by its form, a quadratic, and a multiple of ‖u − r‖²."""
    own = [t for t in alone.terms if _summand(t) >= 0]
    quadratic = all(t.atom in SMOOTH for t in own)
    covered = {id(v) for v in omega.variables()} == {id(v) for v in problem.variables()}
    names = {v.name for v in alone.variables if not v.name.startswith("@")}
    weights: dict[str, list[float]] = {name: [] for name in names}
    plain = True
    for term in own:
        number = _number(term)
        name = term.arg.parts[0][0] if term.arg.parts else ""
        whole = len(term.arg.parts) == 1 and isinstance(term.arg.parts[0][1], Identity) and name in weights
        if term.atom == "square" and whole and number is not None and number > 0:
            weights[name].append(number)
        elif term.atom != "linear":
            plain = False
    strong = covered and all(weights.values())
    totals = {round(sum(w), 12) for w in weights.values()}
    return strong, quadratic, strong and quadratic and plain and len(totals) == 1


def _number(term: Term) -> float | None:
    """A term's weight when it is one constant number."""
    if term.weight is None:
        return 1.0
    if isinstance(term.weight, Const):
        values = term.weight.dense().reshape(-1)
        return float(values[0]) if values.size and (values == values[0]).all() else None
    return None


def _without(both: Program, count: int, plain: Program) -> Program:
    """F: the combined program without the objective's summands from `count` on, and the unknowns only these have."""
    dropped = [i for i, t in enumerate(both.terms) if _summand(t) >= count]
    first = rewrite(both, [((i,), ()) for i in dropped])
    used = {name for term in first.terms for name, _ in term.arg.parts}
    used |= {name for output in first.outputs for name, _ in output.value.parts}
    variables = tuple(v for v in first.variables if not v.name.startswith("@") or v.name in used)
    return replace(first, variables=variables, offset=plain.offset)


def _summand(term: Term) -> int:
    """The index of the objective's summand that a term comes from; −1 for constraints."""
    where = term.origin.where
    return int(where.removeprefix("objective[").split("]")[0]) if where.startswith("objective[") else -1
