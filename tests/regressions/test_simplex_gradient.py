"""A portfolio's gradient against its KKT system: conjugate gradients in the seminorm of a simplex's Jacobian stopped
where rounding hid the residual, off by 3e-3 while they reported 8e-9."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc

F64 = torch.float64


@pytest.mark.parametrize("n", [60, 200])
def test_gradients_of_a_portfolio_are_those_of_its_kkt_system(n: int) -> None:
    rng, factors = np.random.default_rng(1), n // 10
    f, d = rng.normal(size=(n, factors)) / np.sqrt(n), rng.uniform(0.01, 0.1, size=n)
    w, mu = cp.Variable(n, name="w"), cp.Parameter(n, name="mu")
    risk = cp.sum_squares(f.T @ w) + cp.sum_squares(cp.multiply(np.sqrt(d), w))
    problem = cp.Problem(cp.Maximize(mu @ w - risk), [cp.sum(w) == 1, w >= 0])
    layer = oc.compile(problem, inputs=[mu], tolerance=1e-10).double()
    g = torch.Generator().manual_seed(7)
    data = (0.1 * torch.randn(6, n, generator=g, dtype=F64)).requires_grad_()
    seed = torch.randn(6, n, generator=g, dtype=F64)
    (x,) = layer(data)
    (gradient,) = torch.autograd.grad((x * seed).sum(), data)
    hessian = torch.tensor(2 * (f @ f.T + np.diag(d)))
    for i in range(6):
        on = x[i].detach() > 0
        k = int(on.sum())
        kkt = torch.zeros(k + 1, k + 1, dtype=F64)
        kkt[:k, :k], kkt[:k, k], kkt[k, :k] = hessian[on][:, on], 1.0, 1.0
        right = torch.cat([seed[i][on], torch.zeros(1, dtype=F64)])
        expected = torch.zeros(n, dtype=F64)
        expected[on] = torch.linalg.solve(kkt, right)[:k]
        torch.testing.assert_close(gradient[i], expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))
