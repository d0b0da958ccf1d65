"""Data may bring a zero where a function's argument is scaled: the entry is then free, or its constraint a constant."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.status import Status


def hinge() -> oc.EquilibriumLayer:
    x, y, s = oc.Input(3, name="x"), oc.Input(3, name="y"), cp.Variable(3, name="s")
    objective = 0.5 * cp.sum_squares(s - x) + 0.7 * cp.sum(cp.pos(1 - cp.multiply(y, s)))
    return oc.compile(cp.Problem(cp.Minimize(objective)), outputs=[s], tolerance=1e-9).double()


def smooth() -> oc.EquilibriumLayer:
    x, y, s = oc.Input(3, name="x"), oc.Input(3, name="y"), cp.Variable(3, name="s")
    objective = 0.5 * cp.sum_squares(s - x) + cp.sum(cp.logistic(cp.multiply(y, s) + 0.3))
    return oc.compile(cp.Problem(cp.Minimize(objective)), outputs=[s], tolerance=1e-11).double()


X = torch.tensor([[0.1, -1.2, 0.8], [2.0, 0.1, -0.4]], dtype=torch.float64)
Y = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("make", [hinge, smooth])
def test_values_and_gradients_in_x_are_exact(make: object) -> None:
    report = oc.verify(make(), X, Y)  # type: ignore[operator]
    assert report.ok, str(report)


@pytest.mark.parametrize("make", [hinge, smooth])
def test_the_gradient_in_a_zero_scale_is_that_of_its_neighbors(make: object) -> None:
    layer = make()  # type: ignore[operator]
    y, h = Y.clone().requires_grad_(), 1e-5
    layer(X, y)[0].sum().backward()
    want = torch.zeros_like(Y)
    for i in range(3):
        step = torch.zeros_like(Y)
        step[:, i] = h
        want[:, i] = ((layer(X, Y + step)[0] - layer(X, Y - step)[0]) / (2 * h)).detach().sum(dim=1)
    torch.testing.assert_close(y.grad, want, atol=1e-5, rtol=1e-5)


def test_a_constraint_that_becomes_a_constant_holds_or_makes_the_sample_infeasible() -> None:
    a, s = oc.Input(name="a"), cp.Variable(name="s")
    r = oc.Input(name="r")
    problem = cp.Problem(cp.Minimize(0.5 * cp.square(s - 3)), [a * s <= r])
    layer = oc.compile(problem, outputs=[s]).double()
    scale = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    right = torch.tensor([1.0, 1.0, -1.0, 0.0], dtype=torch.float64)
    with pytest.warns(oc.SolveWarning):
        found = layer.solve(scale, right)
    assert list(found.status) == [Status.CONVERGED, Status.CONVERGED, Status.PRIMAL_INFEASIBLE, Status.CONVERGED]
    np.testing.assert_allclose(found.values[0][[0, 1, 3]].numpy(), [1.0, 3.0, 3.0], atol=1e-6)


UNBOUNDED = (
    "w @ abs(x) <= 1",
    "w @ pos(x) <= 1",
    "w @ exp(x) <= 1",
    "w @ huber(x) <= 1",
    "w[0] * mixed_norm(reshape(x, (2, 2), order='C'), 2, 1) <= 1",
    "w[0] * normNuc(reshape(x, (2, 2), order='C')) <= 1",
    "w[0] * sigma_max(reshape(x, (2, 2), order='C')) <= 1",
    "w[0] * lambda_sum_largest(reshape(x, (2, 2), order='C') + reshape(x, (2, 2), order='C').T, 2) <= 1",
)


@pytest.mark.parametrize("text", UNBOUNDED)
def test_a_bound_with_weights_of_zero_bounds_nothing(text: str) -> None:
    """The unbounded sample stays where it is, with derivative 0 in its weights; its neighbour is bounded."""
    x, w, y = cp.Variable(4, name="x"), oc.Input(4, name="w", nonneg=True), oc.Input(4, name="y")
    names = {k: getattr(cp, k) for k in dir(cp)} | {"x": x, "w": w}
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - y)), [eval(text, names)])
    layer = oc.compile(problem, inputs=[w, y]).double()
    weights = torch.tensor([[0.0] * 4, [1.0, 1.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    points = torch.tensor([[1.0, -2.0, 3.0, 0.5]] * 2, dtype=torch.float64, requires_grad=True)
    (found,) = layer(weights, points)
    by_weights, by_points = torch.autograd.grad(found.sum(), (weights, points))
    torch.testing.assert_close(found[0], points[0], atol=1e-6, rtol=0)
    assert (found[1] - points[1]).abs().max() > 0.1
    torch.testing.assert_close(by_weights[0], torch.zeros(4, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(by_points[0], torch.ones(4, dtype=torch.float64), atol=1e-6, rtol=0)
    assert by_weights.isfinite().all()
