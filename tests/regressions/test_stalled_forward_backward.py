"""Proximal-gradient steps that crawl, a steep square beside a flat one, are finished by Newton steps in time."""

import cvxpy as cp
import numpy as np
import pytest

import opteq_cvx as oc
from opteq_cvx.status import Status

MOST = 4000


@pytest.mark.parametrize("matrix", ["factors", "dense"])
@pytest.mark.parametrize("steep", [70.0, 250.0])
@pytest.mark.parametrize("prior", ["max", "log"])
def test_a_steep_square_beside_a_flat_one(prior: str, steep: float, matrix: str) -> None:
    rng = np.random.default_rng(0)
    x = cp.Variable(5, name="x")
    a = np.linalg.qr(rng.normal(size=(5, 2)))[0] @ np.diag([steep, 7e-3])
    f = cp.max(x) if prior == "max" else -cp.sum(cp.log(x))
    goal = f + 0.5 * cp.sum_squares(a.T @ x - np.array([-0.4, -0.9])) + 0.05 * cp.sum_squares(x)
    problem = cp.Problem(cp.Minimize(goal))
    chosen = oc.ForwardBackward(matrix=matrix)
    layer = oc.compile(problem, outputs=[x], tolerance=1e-8, max_steps=MOST, splitting=chosen).double()
    solution = layer.solve()
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    assert solution.status[()] is Status.CONVERGED
    assert int(solution.stats.steps) <= MOST
    np.testing.assert_allclose(solution.values[0].numpy(), x.value, atol=1e-4)
    assert float(solution.objective) == pytest.approx(float(problem.value), rel=1e-7, abs=1e-8)


def test_few_steps_are_only_those_asked_for() -> None:
    x = cp.Variable(5, name="x")
    goal = cp.max(x) + 0.5 * cp.sum_squares(np.diag(10.0 ** np.arange(5)) @ x - 1) + 0.05 * cp.sum_squares(x)
    layer = oc.compile(cp.Problem(cp.Minimize(goal)), outputs=[x], tolerance=1e-10, max_steps=50).double()
    with pytest.warns(oc.SolveWarning, match="max_steps"):
        solution = layer.solve()
    assert int(solution.stats.steps) <= 50
