"""Equations that define every variable leave nothing to iterate on (found by random programs: an IndexError)."""

import cvxpy as cp
import numpy as np
import torch

import opteq_cvx as oc


def test_the_equations_have_the_answer() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 5)), rng.normal(size=5)
    x = cp.Variable(5, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(cp.cumsum(a @ x + 1.0))), [a[:3] @ x == b[:3], a[3:] @ x == b[3:]])
    solution = oc.compile(problem, tolerance=1e-8).double().solve()
    assert solution.status.all_converged
    np.testing.assert_allclose(solution.variables["x"].detach().numpy(), np.linalg.solve(a, b), rtol=1e-8)
    expected = (np.cumsum(b + 1.0) ** 2).sum()
    torch.testing.assert_close(solution.objective.item(), float(expected), rtol=1e-8, atol=0.0)
