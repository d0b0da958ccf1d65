"""The theorems behind units and their equilibria, each against an exact solver or plain linear algebra."""

from itertools import pairwise

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import opteq_cvx as oc
from opteq_cvx.activations import table
from opteq_cvx.energies import UnitEnergies
from opteq_cvx.errors import InputError, NotConvexError
from tests.ties.units import cycle_point, sigma

EXACT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
SOLVABLE = ("relu", "hardtanh", "leaky_relu", "soft_threshold")
SMOOTH = ("tanh", "sigmoid", "elu", "softsign")
FINITE = ("tanh", "hardtanh", "sigmoid", "softsign", "arctan")  # the conjugate is finite everywhere

pytestmark = pytest.mark.filterwarnings("ignore:Solution may be inaccurate")


def data(seed: int, m: int = 4, n: int = 3, norm: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(m, n))
    return norm * W / np.linalg.norm(W, 2), rng.normal(size=m)


def energies(name: str, W: np.ndarray, c: np.ndarray) -> UnitEnergies:
    return UnitEnergies(table(name), torch.as_tensor(W), torch.as_tensor(c))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("name", [*SOLVABLE, "tanh", "sigmoid"])
def test_a_unit_is_the_prox_of_the_stated_convex_function(name: str, shape: tuple[int, int]) -> None:
    """prox_φ(x) = Wᵀσ(Wx + b) with φ(z) = min_{Wᵀu = z} {f(u) + ½‖u‖² − ⟨b, u⟩} − ½‖z‖²."""
    W, b = data(0, *shape)
    x = np.random.default_rng(1).normal(size=shape[1])
    u = cp.Variable(shape[0])
    z = W.T @ u
    cost = oc.activation(name)(u) - b @ u - x @ z  # φ(z) + ½‖z − x‖² at z = Wᵀu, up to a constant
    cp.Problem(cp.Minimize(cost)).solve(solver=cp.CLARABEL, **EXACT)
    np.testing.assert_allclose(W.T @ u.value, W.T @ sigma(name, W @ x + b), atol=2e-6)


@pytest.mark.parametrize("name", SOLVABLE)
def test_every_form_has_the_same_value_at_the_equilibrium(name: str) -> None:
    """(E), (F), (φ) and (D) against Clarabel's value of F, and the minimizer of each is the fixed point."""
    W, c = data(3)
    m, n = W.shape
    found = energies(name, W, c)
    z = cycle_point([(W, c, name)])
    u = sigma(name, W @ z + c)
    v = cp.Variable(m)
    Q = np.eye(m) - W @ W.T
    explicit = cp.Problem(cp.Minimize(oc.activation(name).f(v) + 0.5 * cp.quad_form(v, cp.psd_wrap(Q)) - c @ v))
    explicit.solve(solver=cp.CLARABEL, **EXACT)
    np.testing.assert_allclose(v.value, u, atol=1e-6)
    best = explicit.value
    assert abs(float(found.z_energy(torch.as_tensor(z))) - best) < 1e-7
    assert abs(float(found.u_energy(torch.as_tensor(u))) - best) < 1e-7
    w = cp.Variable(m)  # (φ): over z = Wᵀw
    goal = oc.activation(name)(w) - c @ w - 0.5 * cp.sum_squares(W.T @ w)
    assert not goal.is_convex()  # φ + ½‖z‖² − ½‖z‖²: CVXPY cannot see it, the theorem does
    w.value = u
    value = float(goal.value)
    assert abs(value - best) < 1e-7
    grad = z - W.T @ sigma(name, W @ z + c)
    assert np.abs(grad).max() < 1e-12
    energy = found.z_energy(torch.as_tensor(z) + 1e-3 * torch.randn(20, n, dtype=torch.float64))
    assert bool((energy >= best - 1e-12).all())


@pytest.mark.parametrize("name", FINITE)
def test_the_dual_is_attained_and_never_above(name: str) -> None:
    W, c = data(4)
    found = energies(name, W, c)
    z = torch.as_tensor(cycle_point([(W, c, name)]))
    u = table(name).sigma(z @ found.W.mT + found.c)
    best = float(found.u_energy(u))
    assert abs(float(found.dual_energy(u)) - best) < 1e-8
    points = torch.randn(200, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert bool((found.dual_energy(points) <= best + 1e-9).all())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(FINITE), st.floats(0.3, 0.98))
def test_every_certificate_bounds_the_distance(seed: int, name: str, norm: float) -> None:
    W, c = data(seed, norm=norm)
    found = energies(name, W, c)
    z_star = torch.as_tensor(cycle_point([(W, c, name)]))
    u_star = table(name).sigma(z_star @ found.W.mT + found.c)
    generator = torch.Generator().manual_seed(seed)
    z = z_star + torch.randn(5, 3, dtype=torch.float64, generator=generator)
    slack = 1e-9
    assert bool((found.distance(z) >= (z - z_star).norm(dim=-1) - slack).all())
    residual = (z - found.advance(z)).norm(dim=-1)
    assert bool((residual <= (z - z_star).norm(dim=-1) + slack).all())
    excess = found.z_energy(z) - found.z_energy(z_star)
    assert bool((excess <= residual**2 / (2 * found.modulus) + slack).all())
    u = table(name).sigma(z @ found.W.mT + found.c)
    after, bound = found.certified(u)
    assert bool((bound >= (after - u_star).norm(dim=-1) - slack).all())
    curved = torch.eye(4, dtype=torch.float64) / found.lipschitz - found.W @ found.W.mT
    gap = found.gap(u)
    difference = u - u_star
    weighted = ((difference @ curved) * difference).sum(-1)
    assert bool((gap >= weighted - slack).all())
    assert bool((found.u_energy(u) - found.u_energy(u_star) <= gap + slack).all())


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_energies_interlace(name: str) -> None:
    """E(z⁰) ≥ F(u¹) ≥ E(z¹) ≥ F(u²) ≥ … along Picard's iteration."""
    W, c = data(5, norm=1.0)
    found = energies(name, W, c)
    z = torch.as_tensor(np.random.default_rng(0).normal(size=3))
    values = [float(found.z_energy(z))]
    for _ in range(30):
        u = table(name).sigma(z @ found.W.mT + found.c)
        z = u @ found.W
        values += [float(found.u_energy(u)), float(found.z_energy(z))]
    assert all(b <= a + 1e-12 for a, b in pairwise(values))
    assert values[-1] < values[0] - 1e-3


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_the_lipschitz_bound_holds_for_the_layer(name: str) -> None:
    W, b = data(6)
    U = np.random.default_rng(2).normal(size=(4, 2))
    found = energies(name, W, b)
    bound = float(found.input_lipschitz(torch.as_tensor(U)))
    x = oc.Input(2, name="x")
    layer = oc.compile(oc.unit(cp.Constant(W), U @ x + b, name), tolerance=1e-12)
    points = torch.randn(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (z,) = layer(points)
    ratio = (z[:, None] - z[None]).norm(dim=-1) / (points[:, None] - points[None]).norm(dim=-1).clamp_min(1e-12)
    assert 0.05 * bound < float(ratio.max()) <= bound


def test_two_layers_minimize_the_stated_function() -> None:
    """L = 2: min φ₁(z₁) + φ₂(z₂) + ½‖z₁ − z₂‖², over u with z_k = W_kᵀu_k, by Clarabel."""
    (W, c), (V, d) = data(7), data(8)
    u, v = cp.Variable(4), cp.Variable(4)
    S = np.block([[np.eye(4), -W @ V.T], [-V @ W.T, np.eye(4)]])
    both = cp.hstack([u, v])
    goal = 0.5 * cp.quad_form(both, cp.psd_wrap(S)) - c @ u - d @ v
    cp.Problem(cp.Minimize(goal), [u >= 0, v >= 0]).solve(solver=cp.CLARABEL, **EXACT)
    z = cycle_point([(W, c, "relu"), (V, d, "relu")])
    np.testing.assert_allclose(V.T @ v.value, z, atol=1e-6)


def test_a_parallel_average_minimizes_the_proximal_average() -> None:
    """Σω_kT_k: the minimizer of ½‖z‖² − Σω_kψ_k, here by its conjugate form over all u_k, by Clarabel."""
    omega = np.array([0.3, 0.7])
    (W, c), (V, d) = data(9), data(10)
    u, v = cp.Variable(4), cp.Variable(4)
    z = omega[0] * W.T @ u + omega[1] * V.T @ v
    stacked = np.hstack([omega[0] * W.T, omega[1] * V.T])
    P = np.diag(np.repeat(omega, 4)) - stacked.T @ stacked
    goal = 0.5 * cp.quad_form(cp.hstack([u, v]), cp.psd_wrap(P)) - omega[0] * c @ u - omega[1] * d @ v
    cp.Problem(cp.Minimize(goal), [u >= 0, v >= 0]).solve(solver=cp.CLARABEL, **EXACT)
    layer = oc.compile(
        oc.average([oc.unit(cp.Constant(W), c), oc.unit(cp.Constant(V), d)], omega.tolist()), tolerance=1e-10
    ).double()
    np.testing.assert_allclose(layer()[0].detach().numpy(), z.value, atol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_averaged_layers_approach_the_minimizer_at_the_stated_rate(count: int) -> None:
    units = [data(20 + k) for k in range(count)]
    found = [energies("relu", W, c) for W, c in units]
    rows = [(W, c, "relu") for W, c in units]
    z = torch.zeros(3, dtype=torch.float64)  # argmin S by gradient descent: ∇S = Σ (z − T_k z)
    for _ in range(20_000):
        z = z - sum((z - f.advance(z)) for f in found) / count
    distances = []
    for alpha in (0.4, 0.2, 0.1, 0.05):
        near = torch.as_tensor(cycle_point(rows, alpha, steps=200_000))
        distances.append(float((near - z).norm()))
        assert distances[-1] <= float(oc.averaging_bound(found, near, alpha)) + 1e-10
    assert all(0.3 < b / a < 0.75 for a, b in pairwise(distances))


def test_an_indefinite_wrap_is_refused_and_the_dual_too() -> None:
    W, c = data(11, norm=1.3)
    u = cp.Variable(4)
    curved = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(4) - W @ W.T))
    with pytest.raises(NotConvexError, match=r"eigenvalue -0\.69"):
        oc.compile(cp.Problem(cp.Minimize(oc.activation("sigmoid").f(u) + curved - c @ u)))
    with pytest.raises(NotConvexError, match="not certified"):
        oc.compile(oc.unit(cp.Constant(W), c, "tanh"))
    with pytest.raises(InputError, match="positive semidefinite"):
        oc.dual_energy("tanh", torch.as_tensor(W), torch.as_tensor(c), torch.zeros(4, dtype=torch.float64))
    small = oc.compile(oc.unit(cp.Constant(W), c, "sigmoid"), tolerance=1e-11).double()  # ‖W‖² ≤ 4 is enough
    np.testing.assert_allclose(small()[0].detach().numpy(), cycle_point([(W, c, "sigmoid")]), atol=1e-9)
