"""One CVXPY problem, solved at given parameter values with a linear tilt on its outputs."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import cvxpy as cp
import numpy as np

from opteq_cvx.bridge.lagrangian import lagrangian
from opteq_cvx.frontend.roles import Roles
from opteq_cvx.ir.frozen import Array
from opteq_cvx.status import Status

STATUS = {
    cp.OPTIMAL: Status.CONVERGED,
    cp.OPTIMAL_INACCURATE: Status.MAX_STEPS,
    cp.USER_LIMIT: Status.MAX_STEPS,
    cp.INFEASIBLE: Status.PRIMAL_INFEASIBLE,
    cp.INFEASIBLE_INACCURATE: Status.PRIMAL_INFEASIBLE,
    cp.UNBOUNDED: Status.DUAL_INFEASIBLE,
    cp.UNBOUNDED_INACCURATE: Status.DUAL_INFEASIBLE,
}
"""CVXPY's verdicts as ours; anything else is DIVERGED."""

CLARABEL = tuple(dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), t) for t in (1e-12, 1e-10, 1e-8))
"""Clarabel's tolerances, tightest first: near 1e-12 it may stop short, and the next one is tried."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One solve; zeros where there is no solution. `multipliers` are CVXPY's dual values, in its order."""

    status: Status
    variables: tuple[Array, ...]
    multipliers: tuple[Array, ...]
    outputs: tuple[Array, ...]
    objective: float
    steps: int

    @property
    def flat(self) -> Array:
        """Variables and multipliers as one vector."""
        return np.concatenate([np.zeros(0), *(np.ravel(a) for a in (*self.variables, *self.multipliers))])


class Nudgeable:
    """min f(x; θ) + Σ⟨tilt_k, output_k⟩ subject to the problem's constraints, by any solver of CVXPY."""

    def __init__(
        self,
        problem: cp.Problem,
        outputs: Sequence[cp.Expression],
        known: Roles,
        solver: str,
        options: Mapping[str, Any] | None,
    ) -> None:
        self.problem, self.outputs = problem, tuple(outputs)
        self.sign = -1 if isinstance(problem.objective, cp.Maximize) else 1
        self.parameters = {leaf.name: p for leaf, p in zip(known.leaves, (*known.inputs, *known.weights), strict=True)}
        leaves = {id(p): leaf for leaf, p in zip(known.leaves, (*known.inputs, *known.weights), strict=True)}
        self.lagrangian, self._duals = lagrangian(problem, outputs, leaves)
        self._tilts = tuple(cp.Parameter(y.shape, value=np.zeros(y.shape)) for y in outputs)
        nudges = [cp.sum(cp.multiply(t, y)) for t, y in zip(self._tilts, outputs, strict=True)]
        cost = cp.Minimize(self.sign * problem.objective.args[0] + sum(nudges))
        self._tilted = cp.Problem(cost, problem.constraints)
        self._keywords: dict[str, Any] = {"solver": solver, "warm_start": False}
        given = {} if options is None else dict(options)
        self._attempts = CLARABEL if options is None and solver == cp.CLARABEL else (given,)
        if not cost.is_dcp(dpp=True) or not all(c.is_dcp(dpp=True) for c in problem.constraints):
            self._keywords["ignore_dpp"] = True
        self._lock = Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Nudgeable":
        return self

    def forward(self, values: Mapping[str, Array], rows: int, usable: Sequence[bool]) -> list[Answer]:
        """Solve each sample; values are (1|B, *shape)."""
        with self._lock:
            return [self._at(at(values, i)) if usable[i] else self._none() for i in range(rows)]

    def pair(self, values: Mapping[str, Array], tilts: Sequence[Array]) -> tuple[Answer, Answer]:
        """Solve one sample with +tilts and with −tilts."""
        with self._lock:
            return self._at(values, tilts), self._at(values, [np.asarray(-t) for t in tilts])

    def _at(self, values: Mapping[str, Array], tilts: Sequence[Array] = ()) -> Answer:
        kept = {name: p.value for name, p in self.parameters.items()}
        try:
            try:
                for name, value in values.items():
                    self.parameters[name].value = value
            except ValueError:
                return self._none(Status.INVALID_INPUT)
            for k, tilt in enumerate(self._tilts):
                tilt.value = np.asarray(tilts[k]) if len(tilts) else np.zeros(tilt.shape)
            return self._solve()
        finally:
            for name, old in kept.items():
                self.parameters[name].value = old

    def _solve(self) -> Answer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for attempt in self._attempts:
                    self._tilted.solve(**self._keywords, **attempt)
                    if self._tilted.status != cp.OPTIMAL_INACCURATE:
                        break
            except cp.error.DCPError:
                return self._none(Status.NOT_CONVEX)
            except (cp.error.SolverError, ValueError, ArithmeticError):
                return self._none(Status.DIVERGED)
        status = STATUS.get(self._tilted.status, Status.DIVERGED)
        variables = [v.value for v in self.problem.variables()]
        if status not in (Status.CONVERGED, Status.MAX_STEPS) or any(v is None for v in variables):
            return self._none(status)
        multipliers = [np.zeros(d.shape) if d.value is None else d.value for d in self._duals]
        stats = self._tilted.solver_stats
        steps = stats.num_iters if stats is not None and stats.num_iters is not None else 0
        return Answer(
            status,
            tuple(np.array(v, dtype=np.float64) for v in variables),
            tuple(np.array(m, dtype=np.float64) for m in multipliers),
            tuple(np.array(y.value, dtype=np.float64).reshape(y.shape) for y in self.outputs),
            float(self.problem.objective.args[0].value),
            int(steps),
        )

    def _none(self, status: Status = Status.INVALID_INPUT) -> Answer:
        """No solution."""
        variables = tuple(np.zeros(v.shape) for v in self.problem.variables())
        multipliers = tuple(np.zeros(d.shape) for d in self._duals)
        return Answer(status, variables, multipliers, tuple(np.zeros(y.shape) for y in self.outputs), 0.0, 0)


def at(values: Mapping[str, Array], i: int) -> dict[str, Array]:
    """One sample of values (1|B, *shape)."""
    return {name: np.asarray(a[0 if a.shape[0] == 1 else i]) for name, a in values.items()}
