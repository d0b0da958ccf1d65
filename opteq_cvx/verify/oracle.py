"""Who answers for a program at given parameter values: the user's own problem, or one rebuilt from the IR."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cvxpy as cp
import numpy as np
import torch
from cvxpy.constraints.zero import Equality, Zero
from typing_extensions import override

from opteq_cvx.errors import CompileError, InputError, NotConvexError, message
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.program import Program
from opteq_cvx.verify.answer import Exact, ExactStatus
from opteq_cvx.verify.cvx import FUNCTIONS
from opteq_cvx.verify.exact import solve_exact
from opteq_cvx.verify.layers import environment
from opteq_cvx.verify.rebuild import Rebuilt, rebuild
from opteq_cvx.verify.values import Values, assigned, dense, project, restored, violation


@dataclass(frozen=True, slots=True)
class Judgement:
    """A candidate point: its objective in the user's sense, and how far it violates the constraints,
    relative."""

    objective: float
    violation: float


class Oracle(ABC):
    """Exact answers by parameter name."""

    source: str

    @abstractmethod
    def solve(self, values: Mapping[str, Array]) -> Exact:
        """The exact solution at these values."""

    @abstractmethod
    def judge(self, values: Mapping[str, Array], variables: Mapping[str, Array]) -> Judgement | None:
        """Objective and feasibility of a point given by the variables' names; None where the names do not
        match."""


@dataclass
class Declared(Oracle):
    """The user's problem: `parameters` by our name, `outputs` in the layer's order."""

    problem: cp.Problem
    parameters: Mapping[str, cp.Parameter]
    outputs: Sequence[cp.Expression]
    source: str = "the user's problem"

    @override
    def solve(self, values: Mapping[str, Array]) -> Exact:
        return solve_exact(self.problem, self.outputs, self._values(values))

    @override
    def judge(self, values: Mapping[str, Array], variables: Mapping[str, Array]) -> Judgement | None:
        return judge(self.problem, self._values(values), variables)

    def _values(self, values: Mapping[str, Array]) -> Values:
        return {self.parameters[name]: value for name, value in values.items() if name in self.parameters}


@dataclass
class FromProgram(Oracle):
    """The problem that `verify.rebuild` writes; the parameter expressions are evaluated by torch."""

    program: Program
    source: str = "a problem rebuilt from the compiled program"
    _rebuilt: Rebuilt | None = field(default=None, repr=False)

    @override
    def solve(self, values: Mapping[str, Array]) -> Exact:
        try:
            rebuilt, numbers = self._at(values)
        except NotConvexError as error:
            return Exact(ExactStatus.NOT_CONVEX, note=str(error))
        except CompileError as error:
            return Exact(ExactStatus.FAILED, note=str(error))
        return solve_exact(rebuilt.problem, rebuilt.outputs, numbers)

    @override
    def judge(self, values: Mapping[str, Array], variables: Mapping[str, Array]) -> Judgement | None:
        """The auxiliary variables y == K x + b take the values that the equations give them."""
        rebuilt, numbers = self._at(values)
        shapes = {v.name: v.shape for v in self.program.variables}
        if set(shapes) != set(variables):
            return None
        flat = {name: np.asarray(value).reshape(-1) for name, value in variables.items()}
        return judge(rebuilt.problem, numbers, flat)

    def _at(self, values: Mapping[str, Array]) -> tuple[Rebuilt, Values]:
        env = environment({k: torch.from_numpy(np.array(v)) for k, v in values.items()})
        if self._rebuilt is None:
            self._rebuilt = rebuild(self.program, env)
        return self._rebuilt, self._rebuilt.values(env)


def declared(program: Program, declaration_problem: cp.Problem, by_name: Mapping[str, cp.Parameter],
             outputs: Sequence[cp.Expression]) -> Declared:  # fmt: skip
    """The oracle of a user's problem.

    Raises:
        InputError: a parameter of the problem has no counterpart in the layer, so its value is unknown.
    """
    known = {id(p) for p in by_name.values()}
    for parameter in declaration_problem.parameters():
        if id(parameter) not in known and parameter.value is None:
            names = ", ".join(p.name for p in program.parameters)
            found = f"the problem has the parameter {parameter.name()!r}, which the layer has not"
            raise InputError(message(found, f"parameters named {names}", "name them alike, or give it a value"))
    return Declared(declaration_problem, by_name, outputs)


def judge(problem: cp.Problem, values: Values, variables: Mapping[str, Array]) -> Judgement | None:
    """Evaluate a problem's objective and constraints at a point given by variable names.

    Variables that the point leaves out must be defined by an equation `y == expression` among the
    constraints."""
    own = problem.variables()
    named: dict[str, list[cp.Variable]] = {}
    for variable in own:
        named.setdefault(variable.name(), []).append(variable)
    if any(len(named.get(name, ())) != 1 for name in variables):
        return None
    with restored(own), assigned(values), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Reading from a sparse CVXPY expression")  # a parameter with fixed zeros
        for variable in own:
            variable._value = None
        for name, value in variables.items():
            variable = named[name][0]
            variable._value = np.asarray(value, dtype=np.float64).reshape(variable.shape)
        _propagate(problem)
        if any(v._value is None for v in own):
            return None
        worst = max((_violation(c) for c in problem.constraints), default=0.0)
        worst = max([worst, *(_attribute_violation(v) for v in own)])
        objective = problem.objective.value
        return Judgement(float(objective) if objective is not None else np.nan, worst)


def _propagate(problem: cp.Problem) -> None:
    """Give auxiliary variables the values of the equations that define them."""
    waiting = [c for c in problem.constraints if isinstance(c, Equality | Zero)]
    progress = True
    while progress:
        progress = False
        for constraint in waiting:
            sides = constraint.args
            for mine, other in (sides, sides[::-1]) if len(sides) == 2 else ():
                target = _vec_of(mine)
                if target is not None and target._value is None and other.value is not None:
                    target._value = dense(other.value).reshape(target.shape)
                    progress = True


def _vec_of(expression: cp.Expression) -> cp.Variable | None:
    """The variable that an expression is, up to a C-ordered reshape."""
    if isinstance(expression, cp.Variable):
        return expression
    if (
        isinstance(expression, FUNCTIONS.reshape)
        and expression.order == "C"
        and isinstance(expression.args[0], cp.Variable)
    ):
        return expression.args[0]
    return None


def _violation(constraint: cp.Constraint) -> float:
    scale = 1.0 + max((float(np.abs(dense(a.value)).max(initial=0.0)) for a in constraint.args), default=0.0)
    return float(np.max(np.abs(dense(violation(constraint))), initial=0.0)) / scale


def _attribute_violation(variable: cp.Variable) -> float:
    value = dense(variable._value)
    gap = float(np.abs(dense(project(variable, value)) - value).max(initial=0.0))
    return gap / (1.0 + float(np.abs(value).max(initial=0.0)))
