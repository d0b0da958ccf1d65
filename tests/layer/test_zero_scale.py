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
