"""The exact selected point: first the optimal face of F, then the minimizer of ω on it.

Stage 1 solves F and reads its solution set as a face of the cones (`face`): equations and what remains of the cones, no
tolerance on the objective. Stage 2 minimizes ω over that set by the exact solver. Where ω leaves ties, a third solve
takes the point of least norm among its minimizers, as the layer does. Source: reference theory, section 9.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from typing_extensions import override

from opteq_cvx.errors import CompileError, NotConvexError
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.param import const
from opteq_cvx.ir.program import Program
from opteq_cvx.selection import EPSILON, SecondStage
from opteq_cvx.verify.answer import Exact, ExactStatus
from opteq_cvx.verify.cvx import FUNCTIONS, add, sum_squares
from opteq_cvx.verify.exact import solve_exact
from opteq_cvx.verify.face import SolutionSet, solution_set
from opteq_cvx.verify.layers import environment
from opteq_cvx.verify.oracle import Declared, Judgement, Oracle, judge
from opteq_cvx.verify.rebuild import Rebuilt, rebuild
from opteq_cvx.verify.values import Values, assigned, restored


@dataclass(frozen=True, slots=True)
class Second:
    """ω as a convex expression over the first problem's variables, and constraints of its own auxiliary unknowns.

    `strong`: its minimizer over a convex set is unique.
    """

    omega: Any
    constraints: tuple[Any, ...] = ()
    strong: bool = False


def solve_two_stage(
    problem: cp.Problem, second: Second, outputs: Sequence[cp.Expression], values: Values | None = None
) -> Exact:
    """The point of argmin F with the least ω; `objective` is F's optimal value, `margin` how safely its face is known.

    Args:
        problem: F.
        second: ω.
        outputs: Affine expressions of the problem's variables.
        values: A value for each parameter of F and ω.
    """
    variables = list(problem.variables())
    first = solve_exact(problem, variables, values)
    if not first.status.solved:
        return first
    face = solution_set(first.conic) if first.conic is not None else None
    if face is None:
        return Exact(ExactStatus.FAILED, note="the solution set is not known: its face has no description")
    known = Exact(
        first.status,
        objective=first.objective,
        residual=first.residual,
        tolerance=first.tolerance,
        margin=face.margin,
    )
    with restored(list(values or {})), assigned(values or {}):
        return _second_stage(known, second, outputs, variables, face)


def _second_stage(
    known: Exact, second: Second, outputs: Sequence[Any], variables: Sequence[cp.Variable], face: SolutionSet
) -> Exact:
    places = {
        id(v): FUNCTIONS.reshape(y, v.shape, order="F") if v.shape else FUNCTIONS.sum(y)
        for v, y in zip(variables, face.outputs, strict=True)
    }
    here = [_moved(output, places) for output in outputs]
    points = [_moved(v, places) for v in variables]
    if face.unique:
        return replace(known, outputs=tuple(np.asarray(y.value, dtype=np.float64) for y in here), note="one solution")
    goal, rest = _moved(second.omega, places), [_moved(c, places) for c in second.constraints]
    found = solve_exact(cp.Problem(cp.Minimize(goal), [*face.constraints, *rest]), here + points)
    if found.status.solved and not second.strong and found.conic is not None:
        ties = solution_set(found.conic)
        if ties is not None and not ties.unique:
            least = add([sum_squares(y) for y in ties.outputs[len(here) :]])
            shaped = [FUNCTIONS.reshape(y, h.shape, order="F") for y, h in zip(ties.outputs, here, strict=False)]
            found = solve_exact(cp.Problem(cp.Minimize(least), list(ties.constraints)), shaped)
    if not found.status.solved:
        return Exact(found.status, note=f"second stage: {found.note}")
    residual = max(known.residual, found.residual)
    return replace(known, status=found.status, outputs=found.outputs[: len(here)], residual=residual)


def _moved(expression: Any, places: Mapping[int, Any]) -> Any:
    """An expression or constraint with its variables replaced."""
    return expression.tree_copy(dict(places))


@dataclass
class TwoStage(Oracle):
    """The user's problem with the user's second objective."""

    first: Declared
    second: Second
    source: str = "the user's problem and second objective, in two exact stages"

    @override
    def solve(self, values: Mapping[str, Array]) -> Exact:
        own = {self.first.parameters[k]: v for k, v in values.items() if k in self.first.parameters}
        return solve_two_stage(self.first.problem, self.second, self.first.outputs, own)

    @override
    def judge(self, values: Mapping[str, Array], variables: Mapping[str, Array]) -> Judgement | None:
        return self.first.judge(values, variables)


@dataclass
class TwoStageFromProgram(Oracle):
    """Both stages rebuilt from compiled programs, for layers loaded from disk."""

    program: Program
    stage: SecondStage
    source: str = "two problems rebuilt from the compiled program and its second objective"
    _rebuilt: tuple[Rebuilt, Rebuilt] | None = field(default=None, repr=False)

    @override
    def solve(self, values: Mapping[str, Array]) -> Exact:
        try:
            (first, second), numbers = self._at(values)
        except NotConvexError as error:
            return Exact(ExactStatus.NOT_CONVEX, note=str(error))
        except CompileError as error:
            return Exact(ExactStatus.FAILED, note=str(error))
        mine = {v.name(): v for v in first.problem.variables() if v.name() in self._names}
        theirs = {v.name(): v for v in second.problem.variables() if v.name() in self._names}
        places = {id(v): mine[name] for name, v in theirs.items() if name in mine}
        omega = _moved(second.problem.objective.args[0], places)
        rest = tuple(_moved(c, places) for c in second.problem.constraints)
        return solve_two_stage(first.problem, Second(omega, rest, self.stage.strong), first.outputs, numbers)

    @property
    def _names(self) -> set[str]:
        return {v.name for v in self.program.variables}

    @override
    def judge(self, values: Mapping[str, Array], variables: Mapping[str, Array]) -> Judgement | None:
        (first, _), numbers = self._at(values)
        if self._names != set(variables):
            return None
        flat = {name: np.asarray(value).reshape(-1) for name, value in variables.items()}
        return judge(first.problem, numbers, flat)

    def _at(self, values: Mapping[str, Array]) -> tuple[tuple[Rebuilt, Rebuilt], Values]:
        env = environment({k: torch.from_numpy(np.array(v)) for k, v in {**values, EPSILON: 1.0}.items()})
        if self._rebuilt is None:
            self._rebuilt = rebuild(self.program, env), rebuild(_omega(self.stage), env)
        first, second = self._rebuilt
        return self._rebuilt, {**first.values(env), **second.values(env)}


def _omega(stage: SecondStage) -> Program:
    """ω as a program: the terms of the combined one that come from its summand, at ε = 1."""
    where = f"objective[{stage.summand}]"
    terms = tuple(t for t in stage.program.terms if t.origin.where == where)
    return replace(stage.program, terms=terms, offset=const(0.0), outputs=(), constraints=(), sign=1)
