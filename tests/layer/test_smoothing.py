"""Degenerate programs: what the gradient is there, that it is reported, and what smoothing changes, with its bias."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.errors import GradientWarning, InputError
from opteq_cvx.smoothing import Smoothing
from opteq_cvx.verify.exact import solve_exact


def linear_program() -> tuple[cp.Problem, oc.Input]:
    """Over the simplex: the best entry."""
    c, x = oc.Input(4, name="c"), cp.Variable(4, name="x")
    return cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == 1, x >= 0]), c


def kinked_program() -> tuple[cp.Problem, oc.Input]:
    c, x = oc.Input(4, name="c"), cp.Variable(4, name="x")
    return cp.Problem(cp.Minimize(cp.norm1(x - 1) + 2 * cp.norm_inf(x) + 0.5 * cp.sum_squares(x - c))), c


COSTS = np.array([[1.0, 2.0, 3.0, 0.5], [0.3, -0.2, 0.7, 1.0]])


def test_at_a_vertex_of_a_linear_program_the_gradient_is_zero() -> None:
    problem, _ = linear_program()
    layer = oc.compile(problem, tolerance=1e-9).double()
    c = torch.tensor(COSTS, requires_grad=True)
    (x,) = layer(c)
    (grad,) = torch.autograd.grad((x * torch.arange(4.0, dtype=torch.float64)).sum(), c)
    assert grad.abs().max() < 1e-6


def test_on_a_face_the_gradient_has_no_meaning_and_that_is_reported() -> None:
    """Two costs tie: the derivative does not exist; the least-squares adjoint leaves a residual, and a warning."""
    problem, _ = linear_program()
    layer = oc.compile(problem, tolerance=1e-9).double()
    c = torch.tensor([[1.0, 1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    solution = layer.solve(c)
    with pytest.warns(GradientWarning, match=r"singular or unsolved.*Fix: .*smoothing=Tikhonov"):
        (grad,) = torch.autograd.grad(solution.values[0][:, 0].sum(), c)
    assert torch.isfinite(grad).all()
    assert solution.stats.gradient_error is not None
    assert bool((solution.stats.gradient_error > 1e-3).all())


@pytest.mark.parametrize("smoothing", [oc.Tikhonov(0.5), oc.Moreau(0.1)], ids=["Tikhonov", "Moreau"])
def test_the_smoothed_program_is_checked_as_any_other(smoothing: Smoothing) -> None:
    problem, _ = linear_program() if isinstance(smoothing, oc.Tikhonov) else kinked_program()
    layer = oc.compile(problem, smoothing=smoothing)
    report = oc.verify(layer, torch.tensor(COSTS), gradient_tolerance=1e-6)
    assert report.ok, str(report)


def values(problem: cp.Problem, c: cp.Parameter, smoothing: Smoothing | None) -> np.ndarray:
    layer = oc.compile(problem, smoothing=smoothing, tolerance=1e-11).double()
    return layer.value(torch.tensor(COSTS)).numpy()


def test_tikhonov_is_biased_by_at_most_half_mu_times_the_smallest_solution() -> None:
    problem, c = kinked_program()
    exact = [solve_exact(problem, problem.variables(), {c: v}) for v in COSTS]
    sizes = np.array([np.sum(e.outputs[0] ** 2) for e in exact])
    gaps = []
    for mu in (0.2, 0.1, 0.05):
        gap = values(problem, c, oc.Tikhonov(mu)) - [e.objective for e in exact]
        assert (gap >= -1e-9).all()
        assert (gap <= 0.5 * mu * sizes + 1e-9).all()
        gaps.append(gap / (0.5 * mu * sizes))
    assert (gaps[-1] >= gaps[0] - 1e-6).all()
    np.testing.assert_allclose(gaps[-1], 1.0, atol=0.1)  # the bound is attained in the limit


def test_tikhonov_is_exact_for_linear_programs_below_a_threshold() -> None:
    """The costs differ by 0.5: μ ≤ 0.5 leaves the vertex, a larger one moves off it and has a derivative."""
    problem, _ = linear_program()
    want = np.eye(4)[COSTS.argmin(axis=1)]
    costs = torch.tensor(COSTS, requires_grad=True)
    (near,) = oc.compile(problem, smoothing=oc.Tikhonov(0.2), tolerance=1e-9).double()(costs)
    np.testing.assert_allclose(near.detach().numpy(), want, atol=1e-8)
    (far,) = oc.compile(problem, smoothing=oc.Tikhonov(4.0), tolerance=1e-9).double()(costs)
    (grad,) = torch.autograd.grad(far[:, 0].sum(), costs)
    assert (grad[:, 0] < -1e-2).all()


def test_moreau_is_biased_by_at_most_half_mu_times_the_lipschitz_constants() -> None:
    """‖x − 1‖₁ has L² = 4 (four entries of 1), 2‖x‖∞ has L² = 4."""
    problem, c = kinked_program()
    exact = np.array([solve_exact(problem, problem.variables(), {c: v}).objective for v in COSTS])
    last = np.full(2, np.inf)
    for mu in (0.1, 0.05, 0.025):
        gap = exact - values(problem, c, oc.Moreau(mu))
        assert (gap >= -1e-9).all()
        assert (gap <= 0.5 * mu * 8 + 1e-9).all()
        assert (gap <= 0.6 * last).all()  # O(μ)
        last = gap


def test_moreau_gives_a_derivative_inside_the_dead_zone() -> None:
    """|x| + ½(x − c)² rests at 0 for |c| < 1; with |x| of half-width μ, dx/dc = μ/(1 + μ)."""
    c, x = oc.Input(1, name="c"), cp.Variable(1, name="x")
    problem = cp.Problem(cp.Minimize(cp.norm1(x) + 0.5 * cp.sum_squares(x - c)))
    found = []
    for smoothing in (None, oc.Moreau(0.25)):
        point = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
        (u,) = oc.compile(problem, smoothing=smoothing, tolerance=1e-10).double()(point)
        found.append(float(torch.autograd.grad(u.sum(), point)[0]))
    assert found == [0.0, pytest.approx(0.2, abs=1e-8)]


def test_weights_of_a_smoothed_problem_are_written_back() -> None:
    w, x = oc.Weight(3, name="w", init=1.0), cp.Variable(3, name="x")
    layer = oc.compile(cp.Problem(cp.Minimize(cp.norm1(x - w))), smoothing=oc.Tikhonov(0.1))
    layer.weights.set("w", np.array([1.0, 2.0, 3.0]))
    layer.write_back()
    np.testing.assert_allclose(w.value, [1.0, 2.0, 3.0])


@pytest.mark.parametrize("kind", [oc.Tikhonov, oc.Moreau])
def test_a_strength_that_is_not_positive_is_refused(kind: type[Smoothing]) -> None:
    with pytest.raises(InputError, match="Fix:"):
        kind(0.0)
