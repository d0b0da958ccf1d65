"""Infima that no point attains: points far out meet the tolerance; there y is small beside the rounding of R(v − w)."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.splitting.jacobians import Coupled, Jacobians
from opteq_cvx.splitting.matrices import Dense
from opteq_cvx.splitting.newton import Finish, _better

X = cp.Variable((3, 3), name="X")
S = (X + X.T) / 2
PROBLEMS = {
    "trace of an inverse": cp.Minimize(cp.tr_inv(S + 10 * np.eye(3))),
    "beside hinges": cp.Minimize(cp.tr_inv(S + 10 * np.eye(3)) + cp.sum(cp.pos(1 - X))),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_they_are_approached_to_the_tolerance(name: str) -> None:
    """The infimum is 0; 2000 steps ended with errors of 2e-8 and more, after 17 s."""
    problem = cp.Problem(PROBLEMS[name])
    layer = oc.compile(problem, outputs=problem.variables(), tolerance=1e-8, max_steps=1000).double()
    solution = layer.solve()
    assert solution.status.all_converged
    assert 0.0 <= float(solution.objective) <= 1e-6


def test_a_step_is_not_longer_than_the_proximal_term_allows() -> None:
    """D = 1 + ε by rounding: H is negative without σ, and the step was the gradient times the largest number."""
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    d = Jacobians(torch.zeros(1, 1, dtype=torch.float64), (Coupled(torch.zeros(1, 1, dtype=torch.long), one + 1e-15),))
    sigma, gradient = torch.full((1, 1), 1e-18, dtype=torch.float64), torch.full((1, 1), 1e-12, dtype=torch.float64)
    step = Dense(torch.zeros_like(one), one).newton(sigma, one[0], d, gradient)
    torch.testing.assert_close(step, gradient / sigma)


def test_a_point_that_is_not_finite_is_not_kept() -> None:
    zero, inf = torch.zeros(1, 2, dtype=torch.float64), torch.full((1,), torch.inf, dtype=torch.float64)
    never = torch.zeros(1, dtype=torch.bool)
    best = Finish(zero, zero, zero, inf, torch.zeros(1, dtype=torch.long), never, never, zero)
    lost = _better(best, (zero + torch.nan, zero, zero, zero), inf, 1, 1e-8)
    assert torch.equal(lost.x, zero)
    assert torch.isinf(lost.error).all()
