"""The first oracle: CVXPY with Clarabel at tight tolerances, polished, and never trusting a `psd_wrap`."""

import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.reductions.solvers.conic_solvers.conic_solver import ConicSolver

from opteq_cvx.errors import InputError
from opteq_cvx.verify.answer import Conic, Exact, ExactStatus
from opteq_cvx.verify.convexity import doubts
from opteq_cvx.verify.modelled import formless, solve_modelled
from opteq_cvx.verify.polish import ConicData, ConicPoint, polish, residual
from opteq_cvx.verify.values import Values, assigned, dense, restored

BACKEND = "SCIPY"
"""CVXPY 1.9.3's default backend scrambles a matrix under an identity permutation of its axes; this one does not."""
TOLERANCES = (1e-12, 1e-10, 1e-8, 1e-6)
"""Clarabel's tol_gap_abs = tol_gap_rel = tol_feas, tightest first; the next is tried where one is not
reached."""

ACCEPTED_RESIDUAL = 1e-9
"""A polished point this close to optimality is taken although the solver gave up short of its own
tolerance."""


def solve_exact(
    problem: cp.Problem,
    outputs: Sequence[cp.Expression],
    values: Values | None = None,
    *,
    polished: bool = True,
) -> Exact:
    """Solve `problem` at the given parameter values and evaluate `outputs`; the problem is left as it was
    found.

    Every wrapped matrix and every quadratic form is checked by a dense eigendecomposition first: CVXPY
    believes `psd_wrap`, and returns a wrong point as "optimal" where the claim is false. Parameters count as
    constants, so the problem need not be DPP. Cost: one canonicalization and one interior-point solve.

    Args:
        problem: A CVXPY problem, convex at these values.
        outputs: Affine expressions of its variables.
        values: A value for each parameter; parameters left out keep their own.
        polished: Whether to polish the solution on its active set (`verify.polish`).
    """
    touched = [*problem.variables(), *(v for c in problem.constraints for v in c.dual_variables)]
    with restored(touched):
        try:
            with assigned(values or {}):
                atoms = formless(problem)
                if atoms:
                    return solve_modelled(problem, atoms, outputs, lambda p, seen: _solve(p, seen, polished))
                return _solve(problem, outputs, polished)
        except InputError as error:
            return Exact(ExactStatus.INVALID, note=str(error))


def _solve(problem: cp.Problem, outputs: Sequence[cp.Expression], polished: bool) -> Exact:
    wrong = doubts(problem)
    if wrong:
        return Exact(ExactStatus.NOT_CONVEX, note="; ".join(map(str, wrong)))
    for variable in problem.variables():
        variable.save_value(None)  # CVXPY's sum_largest of a matrix, or of a fractional k, fails at a start
    copies = [cp.Variable(output.shape) for output in outputs]
    readers = [copy == output for copy, output in zip(copies, outputs, strict=True)]
    extended = cp.Problem(problem.objective, [*problem.constraints, *readers])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            form = extended.get_problem_data(cp.CLARABEL, ignore_dpp=True, solver_opts={}, canon_backend=BACKEND)
        except (cp.error.DCPError, cp.error.ParameterError, cp.error.SolverError, ValueError) as error:
            return Exact(ExactStatus.FAILED, note=f"{type(error).__name__}: {error}")
        return _attempts(problem, extended, copies, form, polished)


def _attempts(
    problem: cp.Problem,
    extended: cp.Problem,
    copies: Sequence[cp.Variable],
    form: tuple[Any, Any, Any],
    polished: bool,
) -> Exact:
    """Clarabel at each tolerance in turn, until one is reached or the polished point is good enough."""
    raw, chain, inverse = form
    data = _conic_data(raw)
    verdict = Exact(ExactStatus.FAILED, note="no tolerance was reached")
    for tolerance in TOLERANCES:
        options = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tolerance)
        try:
            found = chain.solve_via_data(extended, raw, warm_start=False, verbose=False, solver_opts=options)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            return Exact(ExactStatus.FAILED, note=f"{type(error).__name__}: {error}")
        text = str(found.status)
        if "PrimalInfeasible" in text:
            return Exact(ExactStatus.INFEASIBLE, tolerance=tolerance)
        if "DualInfeasible" in text:
            return Exact(ExactStatus.UNBOUNDED, tolerance=tolerance)
        x, s, z = (np.asarray(v, dtype=np.float64) for v in (found.x, found.s, found.z))
        if not all(np.isfinite(v).all() for v in (x, s, z)):
            continue
        point = ConicPoint(x, s, z, residual(data, x, s, z))
        better = polish(data, point) if polished else point
        if text == "Solved" or better.residual <= ACCEPTED_RESIDUAL:
            return _read(
                problem,
                extended,
                copies,
                (chain, inverse),
                raw,
                found,
                data,
                better,
                tolerance,
                better is not point,
            )
    return verdict


def _conic_data(raw: dict[str, Any]) -> ConicData:
    q = np.asarray(raw["c"], dtype=np.float64)
    n = q.size
    P = sp.csc_array(raw["P"]) if "P" in raw else sp.csc_array((n, n))
    A = sp.csc_array(raw["A"]) if raw["A"] is not None else sp.csc_array((0, n))
    return ConicData(P, q, A, np.asarray(raw["b"], dtype=np.float64).reshape(-1), raw[ConicSolver.DIMS])


def _read(
    problem: cp.Problem,
    extended: cp.Problem,
    copies: Sequence[cp.Variable],
    inversion: tuple[Any, Any],
    raw: dict[str, Any],
    found: Any,
    data: ConicData,
    point: ConicPoint,
    tolerance: float,
    improved: bool,
) -> Exact:
    """Carry a conic point back to the user's variables, duals and outputs."""
    value = float(0.5 * point.x @ (data.P @ point.x) + data.q @ point.x)
    solution = SimpleNamespace(
        x=point.x, z=point.z, s=point.s, status="Solved", obj_val=value,
        solve_time=found.solve_time, iterations=found.iterations,
    )  # fmt: skip
    chain, inverse = inversion
    recovered = chain.invert(solution, inverse)
    extended.unpack(recovered)
    wrong = doubts(problem, solved=True)
    if wrong:
        return Exact(ExactStatus.NOT_CONVEX, note="at the solution: " + "; ".join(map(str, wrong)))
    starts = raw["param_prob"].var_id_to_col
    columns = (
        tuple(slice(starts[c.id], starts[c.id] + c.size) for c in copies) if all(c.id in starts for c in copies) else ()
    )
    return Exact(
        ExactStatus.OPTIMAL if point.residual <= 1e-8 else ExactStatus.INACCURATE,
        outputs=tuple(dense(c.value) for c in copies),
        objective=float(recovered.opt_val),
        variables=tuple(dense(v.value) for v in problem.variables()),
        duals=tuple(tuple(dense(d.value) for d in c.dual_variables) for c in problem.constraints),
        residual=point.residual,
        tolerance=tolerance,
        polished=improved,
        conic=Conic(data, point, columns) if columns else None,
    )
