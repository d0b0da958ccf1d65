"""CVXPY's own shipped tests, with every continuous solve redirected to `method="OPTEQ"`, and a table of the outcome.

    python -m tests.bridge.conformance [MODULE ...]     # pass and fail for each module, with times
    python -m tests.bridge.conformance --standard       # its standard problems: errors of objective, primal and dual

A test that cannot pass is named in MISSES with its reason; an upgrade of CVXPY that changes one shows as a failure.
"""

import contextlib
import importlib
import inspect
import io
import re
import sys
import time
import unittest
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from opteq_cvx.bridge import METHOD, register

MODULES: tuple[str, ...] = (
    "test_KKT",
    "test_problem",
    "test_examples",
    "test_qp_solvers",
    "test_nonlinear_atoms",
    "test_suppfunc",
    "test_pow_cone_nd",
    "test_soc_dim3",
    "test_von_neumann_entr",
    "test_kron_canon",
    "test_nd_matmul",
    "test_convolution",
    "test_einsum",
    "test_zero_sized",
    "test_parametric_bounds",
    "test_quad_dpp",
    "test_quad_form",
    "test_attributes",
    "test_dpp",
    "test_complex",
    "test_complex_dpp",
    "test_semidefinite_vars",
    "test_scalarize",
    "test_dcp2cone_cse",
    "test_dgp2dcp",
    "test_dgp_dpp",
    "test_constraints",
    "test_objectives",
    "test_power_atom",
    "test_linear_cone",
    "test_cone2cone",
)
QUICK = ("test_nonlinear_atoms", "test_kron_canon", "test_convolution", "test_semidefinite_vars", "test_objectives")
"""Modules of the default run; all others are slow."""

OPTIONS = "checks what a named solver, its options or its output do"
DATA = "looks into the data that CVXPY hands to a solver; there is none"
DPP = "expects an error for a problem that is not DPP; DPP is not needed here"
BELIEVED = "expects that an indefinite matrix is believed to be semidefinite"
APPROXIMATE = "expects a warning about an approximation that is not made here"

MISSES: dict[str, str] = {
    "test_problem.TestProblem.test_bibtex": OPTIONS,
    "test_problem.TestProblem.test_cp_node_count_warn": "counts the warnings of CVXPY's own compilation",
    "test_problem.TestProblem.test_invalid_solvers": OPTIONS,
    "test_problem.TestProblem.test_solve_solver_path": OPTIONS,
    "test_problem.TestProblem.test_solver_error_raised_on_failure": BELIEVED,
    "test_problem.TestProblem.test_solver_stats": OPTIONS,
    "test_problem.TestProblem.test_solver_verbose": OPTIONS,
    "test_problem.TestProblem.test_verbose": OPTIONS,
    "test_qp_solvers.TestQp.test_gurobi_environment": OPTIONS,
    "test_qp_solvers.TestQp.test_gurobi_time_limit_no_solution": OPTIONS,
    "test_suppfunc.TestSupportFunctions.test_invalid_solver": OPTIONS,
    "test_zero_sized.TestZeroSizedSolve.test_nonlinear_plus_empty_array": "expects a domain from an empty function",
    "test_parametric_bounds.TestParametricBoundsDPP.test_non_dpp_bound_raises": DPP,
    "test_attributes.TestParameterDimReducingAttributes.test_diag_parameter": DATA,
    "test_attributes.TestParameterDimReducingAttributes.test_sparse_parameter": DATA,
    "test_attributes.TestParameterDimReducingAttributes.test_symmetric_parameter": DATA,
    "test_dpp.TestDcp.test_ignore_dpp": DPP,
    "test_dpp.TestDcp.test_quad_over_lin": DPP,
    "test_dpp.TestDgp.test_non_dpp_problem_raises_error": DPP,
    "test_dgp2dcp.TestDgp2Dcp.test_qp_solver_not_allowed": OPTIONS,
    "test_dgp2dcp.TestDgp2Dcp.test_solving_non_dgp_problem_raises_error": "expects CVXPY's own words in an error",
    "test_dgp_dpp.TestDgpDpp.test_solve_without_param_value_raises_error": "expects CVXPY's own words in an error",
    "test_complex_dpp.TestComplexDPP.test_dpp_flags": DATA,
    "test_complex_dpp.TestComplexDPP.test_hermitian_param_efficient_representation": DATA,
    "test_quad_form.TestNonOptimal.test_assume_psd": BELIEVED,
    "test_quad_form.TestNonOptimal.test_indefinite_assume_psd_raises": BELIEVED,
    "test_quad_form.TestNonOptimal.test_nsd_exactly_tolerance": BELIEVED,
    "test_quad_form.TestNonOptimal.test_psd_exactly_tolerance": BELIEVED,
    "test_constraints.TestConstraints.test_bounds_attr": "makes two variables of one id",
    "test_constraints.TestConstraints.test_broadcasting": OPTIONS,
    "test_linear_cone.TestLinearCone.test_matrix_lp": "compares one of many solutions with another solver's",
    "test_power_atom.TestGeoMeanApprox.test_approx_warning": APPROXIMATE,
    "test_power_atom.TestPnormApprox.test_approx_warning": APPROXIMATE,
    "test_power_atom.TestPowerAtom.test_approx_warning": APPROXIMATE,
    "test_cone2cone.TestExactApproxCone2Cone.test_explicit_powcone3d_errors_when_unsupported": OPTIONS,
    "test_cone2cone.TestSlacks.test_mi_socp_1": OPTIONS,
}
LONG = "takes minutes"
ABSENT = "tests the interface of a solver that is not installed"
HARD: dict[str, str] = {
    "test_examples.TestExamples.test_inpainting": LONG,
    "test_pow_cone_nd.TestPowConeND.test_pow_cone_nd_balanced_tree_decomposition": LONG,
    "test_complex.TestComplex.test_partial_transpose": LONG,
    "test_dgp2dcp.TestDgp2Dcp.test_paper_example_eye_minus_inv": LONG,
    "test_dgp2dcp.TestDgp2Dcp.test_simpler_eye_minus_inv": LONG,
    "test_qp_solvers.TestCoptQpInterface": ABSENT,
    "test_qp_solvers.TestMPAX": ABSENT,
    "test_qp_solvers.TestPiqpInterface": ABSENT,
    "test_cone2cone.TestOpRelConeQuad": ABSENT,
}
"""Tests, or classes of them, that are left out."""

FAMILIES = ("lp", "qp", "socp", "sdp", "expcone", "exp_soc", "sdp_pcp", "pcp")


@dataclass(frozen=True, slots=True)
class Case:
    """One test method with one combination of its parameters."""

    name: str
    run: Callable[[], None]


@contextlib.contextmanager
def redirected() -> Iterator[None]:
    """Every solve of a continuous DCP or geometric problem goes to ours; what names a solver's options is dropped."""
    register()
    original = cp.Problem.solve

    def solve(self: cp.Problem, *args: Any, **options: Any) -> Any:
        geometric = bool(options.get("gp")) and self.is_dgp()
        ours = not (self.is_mixed_integer() or options.get("qcp") or options.get("method"))
        if not ours or not (self.is_dcp() or geometric):
            return original(self, *args, **options)
        return original(self, method=METHOD, gp=bool(options.get("gp")))

    cp.Problem.solve = solve
    try:
        yield
    finally:
        cp.Problem.solve = original


def cases(module: str) -> list[Case]:
    """The tests of one of CVXPY's test modules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = importlib.import_module(f"cvxpy.tests.{module}")
    out: list[Case] = []
    for class_name, cls in inspect.getmembers(found, inspect.isclass):
        if cls.__module__ != found.__name__:
            continue
        for name in (n for n in dir(cls) if n.startswith("test_")):
            if left_out(f"{module}.{class_name}.{name}"):
                continue
            for at, arguments in enumerate(_combinations(getattr(cls, name))):
                suffix = f"[{at}]" if arguments else ""
                out.append(Case(f"{module}.{class_name}.{name}{suffix}", _bound(cls, name, arguments)))
    return out


def _combinations(test: Any) -> list[dict[str, Any]]:
    """The arguments of a test that pytest parametrizes."""
    sets: list[list[dict[str, Any]]] = []
    for mark in (m for m in vars(test).get("pytestmark", []) if m.name == "parametrize"):
        names = re.split(r"\s*,\s*", mark.args[0]) if isinstance(mark.args[0], str) else list(mark.args[0])
        rows = [tuple(v.values) if type(v).__name__ == "ParameterSet" else v for v in mark.args[1]]
        if len(names) == 1:
            rows = [r if isinstance(r, tuple) and len(r) == 1 else (r,) for r in rows]
        sets.append([dict(zip(names, r, strict=True)) for r in rows])
    return [{k: v for part in combo for k, v in part.items()} for combo in product(*sets)]


def _bound(cls: Any, name: str, arguments: dict[str, Any]) -> Callable[[], None]:
    def run() -> None:
        case = cls(name) if issubclass(cls, unittest.TestCase) else cls()
        for prepare in ("setUp", "setup_method"):
            if prepare in dir(case):
                getattr(case, prepare)()
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), redirected():
            warnings.simplefilter("ignore")  # CVXPY's, about its own tests
            try:
                getattr(case, name)(**arguments)
            except pytest.fail.Exception as wrong:  # no Exception, so that it would end the table
                raise AssertionError(str(wrong)) from wrong
            except pytest.skip.Exception as skipped:
                raise unittest.SkipTest(str(skipped)) from skipped

    return run


def left_out(name: str) -> bool:
    """Whether a test, or its class, is in HARD."""
    return name in HARD or name.rsplit(".", 1)[0] in HARD


def miss(name: str) -> str | None:
    """Why a test cannot pass, or None."""
    return MISSES.get(name.split("[")[0])


def say(line: str, where: Any = None) -> None:
    """Write a line at once."""
    target = sys.stdout if where is None else where
    target.write(f"{line}\n")
    target.flush()


def report(modules: list[str]) -> None:
    """Run modules and print, for each, how many pass, fail, and fail for a reason that is known."""
    say("| module | pass | known miss | skipped | fail | s |\n|---|---|---|---|---|---|")
    for module in modules:
        count, started, failed = Counter[str](), time.perf_counter(), list[str]()
        for case in cases(module):
            try:
                case.run()
                outcome = "pass"
            except unittest.SkipTest:
                outcome = "skipped"
            except Exception as wrong:  # whatever a foreign test raises
                outcome = "known miss" if miss(case.name) else "fail"
                if outcome == "fail":
                    failed.append(f"{case.name}: {type(wrong).__name__}: {str(wrong)[:160]}")
            count[outcome] += 1
        cells = [str(count[k]) for k in ("pass", "known miss", "skipped", "fail")]
        say(f"| {module} | {' | '.join(cells)} | {time.perf_counter() - started:.0f} |")
        for line in failed:
            say(f"  {line!r}", sys.stderr)


SEVERAL = dict.fromkeys(("lp_5", "lp_7"), "its solutions are many")
"""Standard problems whose primal or dual solution is no single point."""


def standard() -> None:
    """CVXPY's standard problems: largest error of objective, primal and dual against Clarabel at 1e-12."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cvxpy.tests import solver_test_helpers as helpers
    register()
    say("| problem | status | objective | primal | dual | within 1e-5 |\n|---|---|---|---|---|---|")
    for name, build in inspect.getmembers(helpers, inspect.isfunction):
        fits = re.fullmatch(rf"({'|'.join(FAMILIES)})_\w+", name) and "mi_" not in name
        if not fits or any(p.default is p.empty for p in inspect.signature(build).parameters.values()):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours, exact = build(), build()
            ours.prob.solve(method=METHOD)
            exact.prob.solve(solver=cp.CLARABEL, **dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-12))
        value, expected = ours.prob.value, exact.prob.value
        errors = [
            abs(value - expected) / max(1.0, abs(expected)) if np.isfinite(expected) else float(value != expected),
            _worst(zip((v.value for v in ours.variables), (v.value for v in exact.variables), strict=True)),
            _worst(
                zip((c.dual_value for c in ours.constraints), (c.dual_value for c in exact.constraints), strict=True)
            ),
        ]
        solved = np.isfinite(expected)
        good = ours.prob.status == exact.prob.status or exact.prob.status == cp.OPTIMAL_INACCURATE
        good = good and not any(e > 1e-5 for e in (errors if solved else errors[:1]))
        cells = " | ".join(f"{e:.1e}" if solved else "" for e in errors)
        verdict = "yes" if good else f"no: {SEVERAL.get(name, 'see the columns')}"
        say(f"| {name} | {ours.prob.status} | {cells} | {verdict} |")


def _worst(pairs: Any) -> float:
    """The largest relative difference to a literal, where there is one."""
    worst = np.nan
    for found, expected in pairs:
        for a, b in zip(*((p if isinstance(p, list) else [p]) for p in (found, expected)), strict=False):
            if a is not None and b is not None:
                gap = float(np.max(np.abs(np.ravel(a) - np.ravel(b)), initial=0.0))
                worst = np.fmax(worst, gap / max(1.0, float(np.max(np.abs(b), initial=0.0))))
    return float(worst)


if __name__ == "__main__":
    wanted = sys.argv[1:]
    if "--standard" in wanted:
        standard()
    else:
        report(wanted or list(MODULES))
