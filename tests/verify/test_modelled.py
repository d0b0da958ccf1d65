"""Exact solves of activations without a cone form, against fixed points by root finding and closed forms."""

import math

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy.optimize import root

import opteq_cvx as oc
from opteq_cvx.activations import table
from opteq_cvx.verify.answer import ExactStatus
from opteq_cvx.verify.exact import solve_exact
from opteq_cvx.verify.modelled import formless, preimage

NAMES = ("softplus", "log_sigmoid", "arctan", "tanhshrink", "tanh", "sigmoid", "softsign", "algebraic", "elu", "celu")
N = 4


def _sigma(name: str, a: np.ndarray) -> np.ndarray:
    functions = torch.nn.functional
    known = {
        "softplus": functions.softplus,
        "log_sigmoid": functions.logsigmoid,
        "arctan": torch.arctan,
        "tanhshrink": functions.tanhshrink,
        "algebraic": lambda t: t / torch.sqrt(1 + t * t),
    }
    found = known.get(name) or getattr(functions, name)
    return np.asarray(found(torch.as_tensor(a, dtype=torch.float64)))


def _problem(name: str) -> tuple[cp.Problem, cp.Variable, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    W = rng.normal(size=(N, N))
    gram, c = 0.8 * W @ W.T / np.linalg.norm(W, 2) ** 2, rng.normal(size=N)
    u = cp.Variable(N, name="u")
    curved = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(N) - gram))
    return cp.Problem(cp.Minimize(oc.activation(name).f(u) + curved - c @ u)), u, gram, c


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_is_the_equilibrium_of_the_activation(name: str) -> None:
    """u = σ(Gu + c) by a root finder, σ torch's own."""
    problem, u, gram, c = _problem(name)
    assert len(formless(problem)) == 1
    found = solve_exact(problem, [u])
    assert found.status is ExactStatus.OPTIMAL, found.note
    at = root(lambda z: z - _sigma(name, gram @ z + c), np.zeros(N), tol=1e-14)
    np.testing.assert_allclose(found.outputs[0], at.x, rtol=1e-8, atol=1e-9)


def test_constraints_terms_and_weights_stay_in_the_problem() -> None:
    """max −2f(u) + cu over u ≤ ½ entry by entry, f of softplus: by the slope f'(y) = ln(eʸ − 1) − y."""
    c, u, w = np.array([-3.0, 0.2, 3.0]), cp.Variable(3, name="u"), cp.Parameter(nonneg=True, value=2.0)
    problem = cp.Problem(cp.Maximize(c @ u - w * oc.activation("softplus").f(u)), [u <= 0.5])
    found = solve_exact(problem, [u])
    slopes = np.log(np.expm1(np.maximum(found.outputs[0], 1e-300))) - found.outputs[0]
    free = found.outputs[0] < 0.5 - 1e-9
    np.testing.assert_allclose(slopes[free], c[free] / 2, atol=1e-8)
    assert free.tolist() == [True, False, False]
    np.testing.assert_allclose(found.duals[0][0][~free], c[~free] - 2 * slopes[~free], rtol=1e-6)
    np.testing.assert_allclose(
        found.objective, c @ found.outputs[0] - 2 * float(oc.activation("softplus").f(found.outputs[0]).value)
    )


@pytest.mark.parametrize("name", NAMES)
def test_preimages_are_inverted_by_the_activation(name: str) -> None:
    row = table(name)
    a = np.array([-3.0, -0.7, 0.3, 2.0])
    y = _sigma(name, a)
    np.testing.assert_allclose(preimage(row.sigma, y), a, rtol=1e-9, atol=1e-9)


def test_nothing_is_solved_where_nothing_is_feasible() -> None:
    u = cp.Variable(2, name="u")
    problem = cp.Problem(cp.Minimize(oc.activation("softplus").f(u)), [u <= -1])
    assert solve_exact(problem, [u]).status is ExactStatus.INFEASIBLE


def test_in_a_constraint_the_missing_form_is_said() -> None:
    u = cp.Variable(2, name="u")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u)), [oc.activation("softplus").f(u) <= -1])
    found = solve_exact(problem, [u])
    assert found.status is ExactStatus.FAILED
    assert "no cone form" in found.note


@pytest.mark.parametrize("name", ["softplus", "tanhshrink", "arctan", "log_sigmoid"])
@pytest.mark.parametrize("tied", [False, True], ids=["explicit", "tied"])
def test_layers_are_verified(name: str, tied: bool) -> None:
    torch.manual_seed(0)
    x, b = oc.Input(2, name="x"), oc.Weight(3, name="b")
    W, U = oc.Weight((3, 3), name="W", norm=0.8), oc.Weight((3, 2), name="U")
    if tied:
        layer = oc.compile(oc.unit(W, U @ x + b, name))
    else:
        u = cp.Variable(3, name="u")
        curved = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(3) - W @ W.T))
        layer = oc.compile(cp.Problem(cp.Minimize(oc.activation(name).f(u) + curved - (U @ x + b) @ u)))
    report = oc.verify(layer, torch.randn(1, 2, dtype=torch.float64), gradients=name == "arctan" and not tied)
    assert report.ok, str(report)
    assert math.isfinite(report.samples[0].distance)


def test_every_step_is_solved_without_values_to_start_from() -> None:
    """CVXPY's sum_largest of k that is no integer fails where its variable has a value, as after the first step."""
    u, v = cp.Variable(3, name="u"), cp.Variable(4, name="v")
    cost = oc.activation("softplus").f(u) + cp.sum_largest(v, 2.5) + cp.sum_squares(v - cp.sum(u)) + cp.sum_squares(u)
    found = solve_exact(cp.Problem(cp.Minimize(cost)), [u])
    assert found.status is ExactStatus.OPTIMAL, found.note
