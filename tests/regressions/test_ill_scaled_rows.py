"""Rows of K over six decades: the Newton finish keeps R where rounding of y = R(v - w) still lets it end."""

import cvxpy as cp
import numpy as np
import pytest

import opteq_cvx as oc


@pytest.mark.parametrize("seed", [2, 6])
def test_rows_of_mixed_scales_converge_to_a_tight_tolerance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = cp.Variable(4, name="x")
    rows = rng.normal(size=(6, 4)) * 10.0 ** rng.uniform(-3, 3, size=(6, 1))
    few = rng.normal(size=(2, 4))
    terms = 5 * cp.max(rows @ x) + 0.1 * cp.exp(cp.norm1(few @ x) - 1)
    entropy = cp.sum(cp.entr(0.1 * rng.normal(size=(1, 4)) @ x + 1.2))
    problem = cp.Problem(cp.Minimize(terms - 0.01 * entropy + cp.sum_squares(x - 3 * rng.normal(size=4))))
    solution = oc.compile(problem, tolerance=1e-8, max_steps=220).double().solve()
    assert solution.status.all_converged
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    np.testing.assert_allclose(float(solution.objective), problem.value, rtol=1e-6)
