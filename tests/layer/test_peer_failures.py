"""Programs on which public issues of peers report wrong or inaccurate gradients, written anew; ours against exact ones.

Exponential-cone derivatives: diffcp #57, #58, #59. Logistic regression: cvxpylayers #85. Iteration limit of LSQR on
ill-conditioned systems: cvxpylayers #70. Loss of accuracy at default tolerances: cvxpylayers #244.
"""

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc

EXPONENTIAL = {
    "entropy": "sum_squares(x - b) - sum(entr(x)), [sum(x) == 2]",
    "relative entropy": "sum(kl_div(x, p)) + b @ x, [sum(x) == 1]",
    "sum of exponentials": "sum_squares(x - b), [sum(exp(x)) <= 3]",
    "log-sum-exp": "log_sum_exp(multiply(p, x) + b) + 0.05 * sum_squares(x), []",
    "logarithm in a constraint": "sum_squares(x - b), [sum(log(x)) >= 0.3]",
    "the cone itself": "sum_squares(x - b) + sum(t), [ExpCone(x, p, t)]",
}


@pytest.mark.parametrize("text", EXPONENTIAL.values(), ids=EXPONENTIAL.keys())
def test_derivatives_through_the_exponential_cone(text: str) -> None:
    """diffcp #57, #58, #59."""
    b, p = oc.Input(4, name="b"), oc.Input(4, name="p", nonneg=True)
    x, t = cp.Variable(4, name="x"), cp.Variable(4, name="t")
    names = {k: getattr(cp, k) for k in dir(cp)} | {"b": b, "p": p, "x": x, "t": t}
    cost, constraints = eval(f"({text})", names)
    layer = oc.compile(cp.Problem(cp.Minimize(cost), constraints))
    g = torch.Generator().manual_seed(2)
    values = {"b": torch.randn(2, 4, generator=g).double(), "p": torch.rand(2, 4, generator=g).double() + 0.5}
    report = oc.verify(layer, *(values[k] for k in layer.input_names), gradient_tolerance=1e-6, cvxpylayers=False)
    assert report.ok, str(report)
    assert any(row.judged for row in report.gradients)


def test_gradients_of_logistic_regression_in_its_data() -> None:
    """cvxpylayers #85: the weights as a function of the training points, by the implicit function theorem."""
    rows, columns, lam = 30, 4, 0.1
    data, w = oc.Input((rows, columns), name="X"), cp.Variable(columns, name="w")
    g = torch.Generator().manual_seed(0)
    x = torch.randn(rows, columns, generator=g, dtype=torch.float64)
    y = torch.where(x @ torch.randn(columns, generator=g, dtype=torch.float64) > 0, 1.0, -1.0).double()
    cost = cp.sum(cp.logistic(-cp.multiply(y.numpy(), data @ w))) / rows + lam * cp.sum_squares(w)
    layer = oc.compile(cp.Problem(cp.Minimize(cost)), tolerance=1e-11).double()
    point = x.clone().requires_grad_()
    (found,) = layer(point)
    v = torch.randn(columns, generator=g, dtype=torch.float64)
    (grad,) = torch.autograd.grad(found, point, v)

    def stationarity(w: Tensor, x: Tensor) -> Tensor:
        return (x.mT @ (-y * torch.sigmoid(-y * (x @ w)))) / rows + 2 * lam * w

    point = found.detach()
    assert stationarity(point, x).norm() < 1e-9
    hessian = torch.func.jacrev(stationarity)(point, x)
    _, pull = torch.func.vjp(lambda m: stationarity(point, m), x)
    want = -pull(torch.linalg.solve(hessian, v))[0]
    assert (grad - want).norm() <= 1e-6 * want.norm()


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_ill_conditioned_systems_are_solved_not_cut_off(condition: float) -> None:
    """cvxpylayers #70: the gradient of a least-squares program with a condition number, by dense linear algebra."""
    n = 60
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    a = left @ np.diag(np.geomspace(1.0, condition**-0.5, n)) @ right
    b, x = oc.Input(n, name="b"), cp.Variable(n, name="x")
    layer = oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(a @ x - b)), [cp.sum(x) == 0]), tolerance=1e-12).double()
    point = torch.tensor(rng.normal(size=(1, n)), requires_grad=True)
    v = torch.tensor(rng.normal(size=(1, n)))
    solution = layer.solve(point)
    (grad,) = torch.autograd.grad(solution.values[0], point, v)
    kkt = np.block([[a.T @ a, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    want = a @ np.linalg.solve(kkt, np.append(v.numpy(), 0.0))[:n]
    assert np.linalg.norm(grad.numpy() - want) <= 1e-6 * np.linalg.norm(want)


def test_gradients_at_the_default_tolerance_keep_four_digits() -> None:
    """cvxpylayers #244: nothing is set, and the gradient is that of the exact active set."""
    n = 20
    rng = np.random.default_rng(0)
    f = rng.normal(size=(n, n))
    p = f @ f.T / n + 0.1 * np.eye(n)
    q, x = oc.Input(n, name="q"), cp.Variable(n, name="x")
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, p) - q @ x), [cp.norm1(x) <= 3, cp.sum(x) >= 0])
    point = torch.tensor(rng.normal(size=(8, n)), requires_grad=True)
    v = torch.tensor(rng.normal(size=(8, n)))
    found = []
    for tolerance in (None, 1e-12):
        layer = oc.compile(problem, tolerance=tolerance).double()
        found.append(torch.autograd.grad(layer(point)[0], point, v)[0])
    error = (found[0] - found[1]).norm(dim=1) / found[1].norm(dim=1)
    assert (error < 1e-4).all()
