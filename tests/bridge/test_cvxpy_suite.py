"""CVXPY's own shipped tests through `method="OPTEQ"`: its standard problems, and each function at a known value.

The standard problems check objective, primal and dual values, the functions the objective to 1e-5.
"""

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from cvxpy import interface

from opteq_cvx.bridge import METHOD, register

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its tables hold nested lists
    from cvxpy.tests import solver_test_helpers, test_constant_atoms

FAMILIES = ("LPs", "QPs", "SOCPs", "SDPs", "ECPs", "MixedCPs", "PCPs")
VALUE = 1e-5

MISSES: dict[str, str] = {
    "lp_7": "needs the package sdpap for its data",
    "lp_bound_attr": "looks into the data that CVXPY hands to a solver; there is none",
    "qp_bound_attr": "looks into the data that CVXPY hands to a solver; there is none",
}
SLOW = ("lp_3", "lp_6", "sdp_pcp_1", "pcp_1", "pcp_3", "exp_soc_1")


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    register()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CVXPY's, about its own tests
        yield


def standard() -> list[Any]:
    """The continuous problems of CVXPY's helper, each with its marks."""
    found = []
    for family in FAMILIES:
        for name, test in inspect.getmembers(getattr(solver_test_helpers, f"StandardTest{family}"), callable):
            short = name.removeprefix("test_")
            if not name.startswith("test_") or "mi_" in name:
                continue
            marks = [pytest.mark.xfail(strict=True, reason=MISSES[short])] if short in MISSES else []
            marks += [pytest.mark.slow] if short in SLOW else []
            found.append(pytest.param(test, id=short, marks=marks))
    return found


@pytest.mark.parametrize("test", standard())
def test_standard_problem(test: Any) -> None:
    test(None, method=METHOD)


def functions() -> list[Any]:
    """(function, kind of objective, one index, arguments, value) for every entry of CVXPY's tables."""
    rows = []
    tables = test_constant_atoms.atoms_minimize + test_constant_atoms.atoms_maximize
    for at, ((function, shape, arguments, value), kind) in enumerate(tables):
        for k, index in enumerate(test_constant_atoms.get_indices(shape)):
            marks = [pytest.mark.slow] if k else []
            row = (function, kind, index if shape else None, arguments, value[index].value)
            rows.append(pytest.param(*row, id=f"{at}-{k}", marks=marks))
    return rows


@pytest.mark.parametrize(("function", "kind", "index", "arguments", "value"), functions())
def test_function_at_a_known_value(function: Any, kind: Any, index: Any, arguments: Any, value: Any) -> None:
    variables = [cp.Variable(interface.shape(a)) for a in arguments]
    expr = function(*variables)
    objective = kind(expr if index is None else expr[index])
    problem = cp.Problem(objective, [v == a for v, a in zip(variables, arguments, strict=True)])
    found = problem.solve(method=METHOD)
    assert problem.status == cp.OPTIMAL
    assert found == pytest.approx(float(np.squeeze(value)), rel=VALUE, abs=VALUE)
