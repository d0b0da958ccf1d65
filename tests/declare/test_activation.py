"""Activations declared in CVXPY: values, CVXPY's own solutions, and layers that evaluate σ."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

import opteq_cvx as oc
from opteq_cvx.activations import ACTIVATIONS, table
from opteq_cvx.atoms import atom
from opteq_cvx.errors import CompileError, UnsupportedError

N = 5
EXACT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
WITHOUT_CONE = ("softplus", "log_sigmoid", "arctan", "tanhshrink")
ONLY_WITH_SQUARE = ("tanh", "sigmoid", "softmax", "softsign", "algebraic", "elu", "celu")
ALONE = tuple(name for name in ACTIVATIONS if name not in (*WITHOUT_CONE, *ONLY_WITH_SQUARE))


pytestmark = pytest.mark.filterwarnings("ignore:Solution may be inaccurate")


def points() -> np.ndarray:
    return 2.5 * np.random.default_rng(0).normal(size=N)


@pytest.mark.parametrize("name", [*ALONE, *ONLY_WITH_SQUARE])
def test_cvxpy_minimizes_psi_minus_the_input_at_sigma(name: str) -> None:
    a, u = points(), cp.Variable(N)
    psi = oc.activation(name)
    problem = cp.Problem(cp.Minimize(psi(u) - a @ u))
    assert problem.is_dcp()
    problem.solve(solver=cp.CLARABEL, **EXACT)
    expected = table(name).sigma(torch.as_tensor(a)).numpy()
    np.testing.assert_allclose(u.value, expected, atol=1e-5)
    primitive = table(name).primitive(torch.as_tensor(a)).sum()
    assert abs(problem.value + float(primitive)) < 1e-6  # ψ = σ̃ is the conjugate of ψ*


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("step", [0.3, 1.0, 4.0])
def test_cvxpys_prox_of_f_is_the_layers(name: str, step: float) -> None:
    a, u = cp.Parameter(N, name="a"), cp.Variable(N)
    problem = cp.Problem(cp.Minimize(step * oc.activation(name).f(u) + 0.5 * cp.sum_squares(u - a)))
    layer = oc.compile(problem, [a], [u], tolerance=1e-10)
    a.value = points()
    (ours,) = layer(torch.as_tensor(a.value))
    problem.solve(solver=cp.CLARABEL, **EXACT)
    np.testing.assert_allclose(ours.detach().numpy(), u.value, atol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_unit_evaluates_sigma_without_iterating(name: str) -> None:
    x, u = oc.Input(4, name="x"), cp.Variable(N, name="u")
    W, b = oc.Weight((N, 4), name="W", seed=0), oc.Weight(N, name="b", seed=1)
    layer = oc.compile(cp.Problem(cp.Minimize(oc.activation(name)(u) - (W @ x + b) @ u))).double()
    assert layer.plan.name == "closed form"
    value = torch.cat(
        [torch.randn((3, 4), dtype=torch.float64), 40.0 * torch.eye(4, dtype=torch.float64)]
    )  # and its ends
    (ours,) = layer(value)
    pre = value @ layer.weights.value("W").detach().T + layer.weights.value("b").detach()
    torch.testing.assert_close(ours.detach(), table(name).sigma(pre), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "softsign", "elu", "softmax"])
def test_an_equilibrium_with_explicit_f_is_the_fixed_point(name: str) -> None:
    rng = np.random.default_rng(3)
    x, u = oc.Input(N, name="x"), cp.Variable(N, name="u")
    W = oc.Weight((N, N), name="W", norm=0.9, init=rng.normal(size=(N, N)) / 6)
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(N) - W @ W.T)) - x @ u
    layer = oc.compile(cp.Problem(cp.Minimize(energy + oc.activation(name).f(u))), tolerance=1e-11).double()
    assert layer.plan.name == "forward–backward"
    value = torch.as_tensor(rng.normal(size=(4, N)))
    (ours,) = layer(value)
    w = layer.weights.value("W").detach()
    fixed = torch.zeros_like(ours)
    for _ in range(3000):
        fixed = table(name).sigma(fixed @ (w @ w.T) + value)
    torch.testing.assert_close(ours.detach(), fixed, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "name",
    ["tanh", "sigmoid", "softplus", "log_sigmoid", "softsign", "algebraic", "arctan", "tanhshrink", "elu", "celu"],
)
@pytest.mark.parametrize("step", [1e-3, 0.3, 1.0, 4.0, 100.0])
def test_the_prox_at_every_step_is_the_minimizer(name: str, step: float) -> None:
    f, row = atom(f"activation_{name}").from_static({}), table(name)
    v = torch.linspace(-3.7, 3.7, 23, dtype=torch.float64)
    x = f.prox(v, torch.full_like(v, step), {})
    low, high = max(row.lower, -30.0), min(row.upper, 30.0)
    for i, point in enumerate(v.tolist()):
        found = minimize_scalar(
            lambda y, point=point: (
                min(step * float(row.f(torch.tensor(y, dtype=torch.float64))), 1e300) + 0.5 * (y - point) ** 2
            ),
            bounds=(low, high),
            method="bounded",
            options={"xatol": 1e-12},
        )
        assert abs(found.x - float(x[i])) < 3e-6


@pytest.mark.parametrize("step", [0.05, 0.5, 1.0, 3.0])
def test_the_prox_of_softmax_is_cvxpys(step: float) -> None:
    """For t ≤ 1 as ψ*; beyond, stationarity on the simplex."""
    v = torch.as_tensor(points()).unsqueeze(0)
    x = atom("activation_softmax").from_static({}).prox(v, torch.tensor([[step]], dtype=torch.float64), {})
    torch.testing.assert_close(x.sum(-1), torch.ones(1, dtype=torch.float64))
    multiplier = v - x - step * (torch.log(x) - x)
    assert (multiplier - multiplier.mean()).abs().max() < 1e-9
    if step <= 1:
        u = cp.Variable(N)
        goal = step * -cp.sum(cp.entr(u)) + 0.5 * (1 - step) * cp.sum_squares(u) - v[0].numpy() @ u
        cp.Problem(cp.Minimize(goal), [cp.sum(u) == 1]).solve(solver=cp.CLARABEL, **EXACT)
        np.testing.assert_allclose(x[0].numpy(), u.value, atol=1e-5)


@pytest.mark.parametrize("name", WITHOUT_CONE)
def test_what_has_no_cone_form_says_so(name: str) -> None:
    u = cp.Variable(N)
    with pytest.raises(UnsupportedError, match="has no cone form"):
        cp.Problem(cp.Minimize(oc.activation(name)(u))).solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("name", ONLY_WITH_SQUARE)
def test_f_alone_points_to_psi(name: str) -> None:
    u = cp.Variable(N)
    with pytest.raises(UnsupportedError, match=f"write activation\\('{name}'\\)"):
        cp.Problem(cp.Minimize(oc.activation(name).f(u))).solve(solver=cp.CLARABEL)


def test_curvature_is_declared_and_affine_arguments_only() -> None:
    u = cp.Variable(N)
    f = oc.activation("tanh").f(2 * u - 1)
    assert f.is_convex()
    assert not f.is_concave()
    assert not oc.activation("tanh").f(cp.square(u)).is_convex()
    assert "tanh" in str(f)


def test_the_domain_is_where_the_function_is_finite() -> None:
    """CVXPY's `domain` of tanh is [−1, 1], of softmax the simplex; no sign is claimed, and no gradient given."""
    u = cp.Variable(N)
    for name, inside, outside in (
        ("tanh", np.full(N, 0.9), np.full(N, 1.1)),
        ("softmax", np.full(N, 1 / N), np.full(N, 2 / N)),
        ("relu", np.full(N, 7.0), np.full(N, -0.1)),
    ):
        psi = oc.activation(name)(u)
        for value, allowed in ((inside, True), (outside, False)):
            u.value = value
            assert all(c.value() for c in psi.domain) is allowed
            assert np.isfinite(psi.value) == allowed
        assert not psi.is_nonneg()
        assert not psi.is_nonpos()
        assert not oc.activation(name)(-cp.square(u)).is_convex()
        assert not oc.activation(name)(-cp.square(u)).is_concave()
        assert psi.grad[u] is None


def test_gelu_is_refused() -> None:
    with pytest.raises(CompileError, match="not monotone"):
        oc.activation("gelu")
