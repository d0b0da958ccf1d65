"""`problem.solve(method="OPTEQ")`: what it sets, what it refuses, and the reductions before it."""

import cvxpy as cp
import numpy as np
import pytest
from cvxpy import error

import opteq_cvx as oc
from opteq_cvx.bridge import METHOD, register

VALUE = 1e-6


@pytest.fixture(autouse=True)
def _registered() -> None:
    register()


def test_value_variables_status_and_statistics_are_set() -> None:
    x, b = cp.Variable(3), cp.Parameter(3, value=np.array([1.0, -2.0, 0.5]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b)), [cp.sum(x) == 1, x >= 0])
    value = problem.solve(method=METHOD)
    np.testing.assert_allclose(x.value, [0.75, 0.0, 0.25], atol=VALUE)
    assert problem.status == cp.OPTIMAL
    assert value == problem.value == pytest.approx(0.0625 + 4 + 0.0625, abs=VALUE)
    assert problem.solver_stats.solver_name == METHOD
    assert problem.solver_stats.num_iters > 0
    assert problem.solver_stats.solve_time > 0
    b.value = np.array([3.0, 0.0, 0.0])
    problem.solve(method=METHOD)
    np.testing.assert_allclose(x.value, [1.0, 0.0, 0.0], atol=VALUE)


@pytest.mark.parametrize("objective", [cp.Minimize, cp.Maximize])
def test_infeasible_problems_have_infinite_value_and_no_variables(objective: type) -> None:
    x = cp.Variable(2, value=np.ones(2))
    problem = cp.Problem(objective(cp.sum(x)), [cp.norm(x) <= 1, x[0] >= 2])
    value = problem.solve(method=METHOD)
    assert problem.status == cp.INFEASIBLE
    assert value == (np.inf if objective is cp.Minimize else -np.inf)
    assert x.value is None


def test_unbounded_problem_has_infinite_value() -> None:
    x = cp.Variable(2)
    problem = cp.Problem(cp.Maximize(x[0] + x[1]), [x[0] - x[1] == 1])
    assert problem.solve(method=METHOD) == np.inf
    assert problem.status == cp.UNBOUNDED


def test_constraints_without_variables_are_checked() -> None:
    x, p = cp.Variable(), cp.Parameter(value=1.0)
    problem = cp.Problem(cp.Minimize(cp.square(x - p)), [p >= 0, x <= 3])
    assert problem.solve(method=METHOD) == pytest.approx(0.0, abs=VALUE)
    p.value = -1.0
    assert problem.solve(method=METHOD) == np.inf
    assert problem.status == cp.INFEASIBLE


def test_problem_without_variables_has_its_value() -> None:
    assert cp.Problem(cp.Minimize(cp.Constant(3.0))).solve(method=METHOD) == 3.0


def test_parameters_in_data_and_bounds_are_evaluated() -> None:
    m, r = cp.Parameter(nonneg=True, value=0.5), cp.Parameter(value=0.2)
    x = cp.Variable(2, bounds=[None, r])
    problem = cp.Problem(cp.Minimize(cp.sum(cp.huber(x - 3, m))), [cp.dotsort(x, cp.Parameter(2, value=[0, 1])) <= 1])
    assert problem.solve(method=METHOD) == pytest.approx(2 * (2 * 0.5 * 2.8 - 0.25), abs=VALUE)


def test_structured_variables_get_their_own_kind_of_value() -> None:
    d = cp.Variable((3, 3), diag=True)
    s = cp.Variable((2, 2), symmetric=True)
    c = np.array([[1.0, 2.0], [0.0, 3.0]])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(d - np.eye(3)) + cp.sum_squares(s - c)))
    problem.solve(method=METHOD)
    np.testing.assert_allclose(d.value.toarray(), np.eye(3), atol=VALUE)
    np.testing.assert_allclose(s.value, (c + c.T) / 2, atol=VALUE)


def test_geometric_program_is_solved_by_its_logarithm() -> None:
    x, y = cp.Variable(pos=True), cp.Variable(pos=True)
    a = cp.Parameter(pos=True, value=2.0)
    problem = cp.Problem(cp.Minimize(x / y + a / x), [x <= 4, y <= 5])
    assert problem.solve(method=METHOD, gp=True) == pytest.approx(2 * np.sqrt(2 / 5), abs=VALUE)
    np.testing.assert_allclose([x.value, y.value], [np.sqrt(10), 5.0], atol=1e-3)


def test_complex_program_is_split_into_parts() -> None:
    z = cp.Variable(2, complex=True)
    h = cp.Variable((2, 2), hermitian=True)
    c = np.array([1 + 2j, -1j])
    matrix = np.array([[1.0, 1j], [-1j, -2.0]])
    problem = cp.Problem(cp.Minimize(cp.norm(z - c) + cp.sum_squares(h - matrix)), [cp.real(z) <= 0.5, h >> 0])
    value = problem.solve(method=METHOD)
    ours = (z.value, h.value)
    assert value == pytest.approx(problem.solve(solver="CLARABEL"), abs=1e-5)
    for found, variable in zip(ours, (z, h), strict=True):
        np.testing.assert_allclose(found, variable.value, atol=1e-4)


def test_few_steps_are_reported_as_a_limit() -> None:
    x = cp.Variable(3)
    problem = cp.Problem(cp.Minimize(cp.norm(x - np.arange(3.0)) + cp.norm1(x)), [cp.sum(x) == 1])
    with pytest.warns(UserWarning, match="may be inaccurate"):
        problem.solve(method=METHOD, max_steps=1)
    assert problem.status in (cp.OPTIMAL_INACCURATE, cp.USER_LIMIT)
    assert x.value is not None


def test_verbose_prints_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    x = cp.Variable()
    cp.Problem(cp.Minimize(cp.square(x - 1))).solve(method=METHOD, verbose=True)
    assert "plan: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [({"solver": "SCS"}, "SCS"), ({"qcp": True}, "bisect"), ({"requires_grad": True}, "differentiable")],
)
def test_what_has_no_meaning_here_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(oc.InputError, match=words):
        cp.Problem(cp.Minimize(cp.square(cp.Variable()))).solve(method=METHOD, **options)


def test_errors_are_those_of_cvxpy() -> None:
    x = cp.Variable(2)
    with pytest.raises(error.DCPError, match="Fix: "):
        cp.Problem(cp.Minimize(cp.sqrt(x[0]))).solve(method=METHOD)
    with pytest.raises(error.DGPError):
        cp.Problem(cp.Minimize(x[0])).solve(method=METHOD, gp=True)
    with pytest.raises(error.ParameterError):
        cp.Problem(cp.Minimize(cp.sum_squares(x - cp.Parameter(2)))).solve(method=METHOD)
    with pytest.raises(error.SolverError, match="boolean"):
        cp.Problem(cp.Minimize(cp.Variable(boolean=True))).solve(method=METHOD)
