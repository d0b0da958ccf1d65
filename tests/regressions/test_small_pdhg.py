"""PDHG that was asked for on a small program: where it is slow, Newton steps finish; the answers are Clarabel's."""

import cvxpy as cp
import numpy as np
import pytest

import opteq_cvx as oc
from opteq_cvx.errors import SolveWarning
from opteq_cvx.status import Status


def barrier() -> cp.Problem:
    """Logarithms of rows that lie four decades apart, a quadratic and a norm."""
    rng = np.random.default_rng(543)
    x = cp.Variable(6, name="x")
    rows = rng.normal(size=(5, 6)) * np.logspace(-2, 2, 5)[:, None]
    cost = cp.sum_squares(rows[1:4] @ x - 1) + cp.norm(rows[2:] @ x, "inf") - cp.sum(cp.log(rows @ x + 3.0))
    return cp.Problem(cp.Minimize(cost), [x <= 2])


def apart() -> cp.Problem:
    """Two constraints that contradict each other beside logarithms."""
    rng = np.random.default_rng(773)
    x = cp.Variable(5, name="x")
    rows = rng.normal(size=(4, 5)) * np.logspace(-1, 1, 4)[:, None]
    return cp.Problem(cp.Minimize(-cp.sum(cp.log(rows @ x + 2.0))), [cp.norm(x, 2) <= 1, cp.sum(x) >= 3, x >= -2])


def solved(problem: cp.Problem) -> oc.Solution:
    layer = oc.compile(problem, outputs=problem.variables(), splitting=oc.PDHG(), tolerance=1e-8, max_steps=4000)
    return layer.double().solve()


def test_a_solution_takes_a_few_hundred_steps() -> None:
    problem = barrier()
    solution = solved(problem)
    problem.solve(solver="CLARABEL")
    assert solution.status.all_converged
    assert float(solution.objective) == pytest.approx(problem.value, rel=1e-6)
    assert solution.values[0].numpy() == pytest.approx(problem.variables()[0].value, abs=1e-4)
    assert int(solution.stats.steps) <= 300


def test_a_contradiction_is_found_in_a_few_hundred_steps() -> None:
    with pytest.warns(SolveWarning, match="primal_infeasible"):
        solution = solved(apart())
    assert solution.status[()] is Status.PRIMAL_INFEASIBLE
    assert int(solution.stats.steps) <= 300
