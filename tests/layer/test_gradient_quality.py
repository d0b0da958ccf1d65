"""What protects a gradient: a warning where its estimated error is large, and weights no bad sample can poison."""

import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.adjoint import AdjointMode
from opteq_cvx.errors import GradientWarning, SolveWarning
from opteq_cvx.status import Status

MODES: list[AdjointMode] = [
    oc.Implicit(), oc.EquilibriumPropagation(), oc.Truncated(steps=3), oc.Unrolled(steps=50)
]  # fmt: skip


def weighted_layer(adjoint: AdjointMode | None = None) -> oc.EquilibriumLayer:
    """Weights before, inside and behind the program: exp(Ux) in the cost, W in the quadratic and the output."""
    rng = np.random.default_rng(0)
    x = oc.Input(3, name="x")
    u_in = oc.Weight((4, 3), name="U", init=rng.normal(size=(4, 3)))
    w = oc.Weight((4, 4), name="W", norm=0.9, init=rng.normal(size=(4, 4)) / 5)
    u = cp.Variable(4, nonneg=True, name="u")
    cost = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(4) - w @ w.T)) - cp.exp(u_in @ x) @ u
    return oc.compile(cp.Problem(cp.Minimize(cost)), outputs=[w.T @ u, u], adjoint=adjoint, tolerance=1e-9).double()


def loss(values: tuple[Tensor, ...]) -> Tensor:
    return sum((v.pow(2).sum() for v in values), torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize("adjoint", MODES, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize(
    ("bad", "status"),
    [(torch.nan, Status.NON_FINITE_INPUT), (torch.inf, Status.NON_FINITE_INPUT), (1e4, Status.DIVERGED)],
)
def test_a_bad_sample_leaves_no_trace_in_shared_weights(adjoint: AdjointMode, bad: float, status: Status) -> None:
    """NaN, infinity, and a finite input at which the data overflow: exp(Ux) = ∞."""
    layer = weighted_layer(adjoint)
    x = torch.randn(4, 3, dtype=torch.float64)
    clean = torch.autograd.grad(loss(layer(x[[0, 1, 3]])), list(layer.parameters()))
    x[2] = bad
    x.requires_grad_()
    with pytest.warns(SolveWarning, match="1 of 4 samples failed"):
        solution = layer.solve(x)
    assert [s is status for s in solution.status] == [False, False, True, False]
    good = [v[[0, 1, 3]] for v in solution.values]
    for total in (loss(tuple(good)), loss(solution.values)):
        grads = torch.autograd.grad(total, [x, *layer.parameters()], retain_graph=True)
        assert (grads[0][2] == 0).all()
        assert (grads[0][[0, 1, 3]] != 0).any()
        for got, want in zip(grads[1:], clean, strict=True):
            torch.testing.assert_close(got, want, atol=1e-8, rtol=1e-8)


def test_a_bad_sample_leaves_no_trace_in_the_value() -> None:
    layer = weighted_layer()
    x = torch.randn(3, 3, dtype=torch.float64)
    clean = torch.autograd.grad(layer.value(x[:2]).sum(), list(layer.parameters()))
    x[2] = 1e4
    with pytest.warns(SolveWarning):
        value = layer.value(x)
    for got, want in zip(torch.autograd.grad(value.sum(), list(layer.parameters())), clean, strict=True):
        torch.testing.assert_close(got, want, atol=1e-8, rtol=1e-8)


def test_when_all_samples_are_bad_the_gradient_is_zero() -> None:
    layer = weighted_layer()
    with pytest.warns(SolveWarning, match="2 of 2"):
        values = layer(torch.full((2, 3), torch.nan, dtype=torch.float64))
    grads = torch.autograd.grad(loss(values), list(layer.parameters()))
    assert all((g == 0).all() for g in grads)


def rough_layer(*, decades: float = 3.0, **options: object) -> oc.EquilibriumLayer:
    b, x = oc.Input(6, name="b"), cp.Variable(6, name="x")
    a = np.diag(np.geomspace(1.0, 10.0**-decades, 6))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(a @ x - b) + cp.norm1(x)), [cp.sum(x) <= 1])
    return oc.compile(problem, **options).double()


def test_one_warning_per_backward_where_the_estimate_exceeds_the_tolerance() -> None:
    layer = rough_layer(gradient_tolerance=1e-15)
    b = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    (x,) = layer(b)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        x.sum().backward(retain_graph=True)
        x.pow(2).sum().backward()
    assert [w.category for w in seen] == [GradientWarning]
    assert "gradients may be off by a relative" in str(seen[0].message)
    assert "Fix: tighten tolerance" in str(seen[0].message)


def test_no_warning_at_the_default_for_ordinary_programs() -> None:
    layer = rough_layer()
    b = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    solution = layer.solve(b)
    solution.values[0].sum().backward()
    assert solution.stats.gradient_error is not None
    assert (solution.stats.gradient_error < 1e-3).all()


def test_the_estimate_is_an_order_of_magnitude_of_the_true_error() -> None:
    b = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    found = []
    for tolerance in (1e-12, 1e-3):
        layer = rough_layer(decades=1.0, tolerance=tolerance, gradient_tolerance=float("inf"))
        solution = layer.solve(b)
        found.append(torch.autograd.grad(solution.values[0].pow(2).sum(), b)[0])
    error = (found[1] - found[0]).norm(dim=1)
    assert solution.stats.gradient_error is not None
    assert error.max() > 0
    assert (error <= 100 * solution.stats.gradient_error * found[0].norm(dim=1) + 1e-12).all()
