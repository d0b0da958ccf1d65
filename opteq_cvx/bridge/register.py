"""`problem.solve(method="OPTEQ")`: one CVXPY problem, solved by its compiled network."""

import sys
import time
import warnings
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
import torch
from cvxpy import error, settings
from cvxpy.problems.problem import SolverStats
from cvxpy.reductions.solution import Solution

import opteq_cvx.solution as ours
from opteq_cvx.bridge.layouts import unpackable
from opteq_cvx.bridge.reduce import Reduced, failure, reduce
from opteq_cvx.compile import compile as compile_problem
from opteq_cvx.declare import Weight
from opteq_cvx.errors import CompileError, InputError, NotConvexError, SolveWarning, message
from opteq_cvx.ir.frozen import Array
from opteq_cvx.layer import EquilibriumLayer
from opteq_cvx.status import Status

METHOD = "OPTEQ"
TOLERANCE = 1e-8
MAX_STEPS = 50_000
INACCURATE = 1e-4
"""A relative residual up to which an unfinished solve is `optimal_inaccurate`, beyond it `user_limit`."""

FAILED = {Status.PRIMAL_INFEASIBLE: settings.INFEASIBLE, Status.DUAL_INFEASIBLE: settings.UNBOUNDED}


def register() -> None:
    """Make `problem.solve(method="OPTEQ")` work for every CVXPY problem in this process."""
    cp.Problem.register_solve(METHOD, solve)


def solve(
    problem: cp.Problem,
    *,
    solver: str | None = None,
    tolerance: float = TOLERANCE,
    max_steps: int = MAX_STEPS,
    gp: bool = False,
    qcp: bool = False,
    requires_grad: bool = False,
    verbose: bool = False,
    warm_start: bool = True,
    enforce_dpp: bool = False,
    ignore_dpp: bool = False,
    canon_backend: str | None = None,
) -> float | complex:
    """Solve a problem at the values of its parameters; set values, status and statistics as CVXPY does.

    Duals are set for every constraint of which CVXPY has them.
    `warm_start`, `enforce_dpp`, `ignore_dpp` and `canon_backend` are accepted and have nothing to act on: every solve
    starts afresh, and no matrix of the parameters is built. `verbose` prints the plan.

    Returns:
        The optimal value.

    Raises:
        InputError: another solver, `qcp` or `requires_grad`.
        cvxpy.error.DCPError, DGPError, ParameterError: as CVXPY raises them.
        cvxpy.error.SolverError: a discrete variable, a function without a route, or a solve that failed.
    """
    _refuse(solver, qcp=qcp, requires_grad=requires_grad)
    started = time.perf_counter()
    reduced = reduce(problem, gp=gp)
    if reduced.violated:
        return _finish(problem, failure(problem, settings.INFEASIBLE, {}))
    if not reduced.problem.variables():
        value = reduced.problem.objective.value
        return _finish(problem, reduced.invert(Solution(settings.OPTIMAL, value, {}, {}, {})))
    layer, values = _compiled(reduced.problem, tolerance, max_steps)
    if verbose:
        sys.stdout.write(f"{layer.plan}\n")
    ready = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SolveWarning)  # the problem's status says it
        found = layer.solve(*values)
    attributes = {
        settings.SETUP_TIME: ready - started,
        settings.SOLVE_TIME: time.perf_counter() - ready,
        settings.NUM_ITERS: int(found.stats.steps.max()),
    }
    return _finish(problem, _solution(problem, reduced, found, attributes))


def _refuse(solver: str | None, *, qcp: bool, requires_grad: bool) -> None:
    if solver not in (None, METHOD):
        fix = f'leave solver= out, or drop method="{METHOD}" to use {solver}'
        raise InputError(message(f"solver={solver!r}", f"none beside method={METHOD!r}", fix))
    if qcp:
        fix = "bisect on a convex feasibility problem, or use CVXPY's own qcp=True without method="
        raise InputError(message("qcp=True", "a convex or geometric problem", fix))
    if requires_grad:
        fix = "compile the problem with opteq_cvx.compile: its layer is differentiable"
        raise InputError(message("requires_grad=True", "a solve without derivatives", fix))


def _compiled(problem: cp.Problem, tolerance: float, max_steps: int) -> tuple[EquilibriumLayer, list[torch.Tensor]]:
    """The layer of a problem whose few parameters left (in an atom's data, in bounds) are inputs, and their values."""
    parameters = [p for p in problem.parameters() if not isinstance(p, Weight)]
    try:
        layer = compile_problem(
            problem, inputs=parameters, outputs=problem.variables(), tolerance=tolerance, max_steps=max_steps
        )
    except NotConvexError as wrong:
        raise error.DCPError(str(wrong)) from wrong
    except CompileError as wrong:
        raise error.SolverError(str(wrong)) from wrong
    values = []
    for p in parameters:
        if p.value is None:
            raise error.ParameterError("Problem contains unspecified parameters.")
        values.append(torch.tensor(np.asarray(p.value, dtype=np.float64)))
    return layer.double(), values


def _solution(problem: cp.Problem, reduced: Reduced, found: ours.Solution, attributes: dict[str, Any]) -> Solution:
    """CVXPY's solution of the user's problem."""
    (status,) = tuple(found.status)
    if status in FAILED:
        failed = failure(problem, FAILED[status], attributes)
        failed.dual_vars, rays = _duals(reduced.problem, found), found.rays
        if status is Status.PRIMAL_INFEASIBLE and rays is not None and bool(rays.certified.all()):
            pairs = zip(reduced.problem.constraints, rays.duals, strict=True)
            failed.dual_vars = {c.id: unpackable(c, d) for c, d in pairs if d}
        return reduced.invert(failed)
    if status not in (Status.CONVERGED, Status.MAX_STEPS):
        wrong = error.DCPError if status is Status.NOT_CONVEX else error.SolverError
        raise wrong(f"{METHOD}: {status.value}")
    named = settings.OPTIMAL
    if status is Status.MAX_STEPS:
        near = float(found.stats.residual.max()) <= INACCURATE
        named = settings.OPTIMAL_INACCURATE if near else settings.USER_LIMIT
    variables = reduced.problem.variables()
    values = {v.id: _stored(v, x.detach().numpy()) for v, x in zip(variables, found.values, strict=True)}
    duals = _duals(reduced.problem, found)
    return reduced.invert(Solution(named, float(found.objective.max()), values, duals, attributes))


def _stored(variable: cp.Variable, value: Array) -> Any:
    """A value as CVXPY keeps it: exactly in the set of its attributes, a diagonal variable sparse."""
    if variable.attributes["diag"]:
        return sp.diags_array(np.diagonal(value))
    return value if variable.attributes["bounds"] is not None else variable.project(value)


def _duals(problem: cp.Problem, found: ours.Solution) -> dict[int, Any]:
    """The duals by constraint, in the layout of `Problem.unpack`."""
    pairs = zip(problem.constraints, found.duals, strict=True)
    parts = ((c, d if isinstance(d, tuple) else (d,)) for c, d in pairs)
    return {c.id: unpackable(c, d) if d else np.zeros(c.shape) for c, d in parts}  # zeros where CVXPY has none either


def _finish(problem: cp.Problem, solution: Solution) -> float | complex:
    """Write the solution into the problem."""
    if solution.status in settings.INACCURATE:
        warnings.warn(f"{METHOD}: the solution may be inaccurate; raise max_steps or loosen tolerance", stacklevel=5)
    problem.unpack(solution)
    problem._compilation_time = solution.attr.get(settings.SETUP_TIME)
    problem._solver_stats = SolverStats.from_dict(solution.attr, METHOD)
    value: float | complex | np.generic = problem.value
    return value.item() if isinstance(value, np.generic) else value
