"""verify on tied layers: values and gradients against exact solves at the tied values, and what it must reject."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.declare import Tied
from tests.ties.units import K, unit

VALUES = torch.as_tensor(np.random.default_rng(7).normal(size=(1, K)))


def chain(count: int, name: str = "relu", shift: float = 0.0) -> Tied:
    """A cycle of small units with the input itself as injection."""
    x = oc.Input(K, name="x")
    rng = np.random.default_rng(count)
    weights = [oc.Weight((K, K), name=f"W{k}", norm=0.9, init=rng.normal(size=(K, K)) / 4) for k in range(count)]
    return oc.cycle([oc.unit(W, x + shift, name, name=f"u{k}") for k, W in enumerate(weights)])


@pytest.mark.parametrize(("count", "name"), [(1, "tanh"), (2, "relu"), (3, "relu")])
def test_values_and_gradients_of_cycles(count: int, name: str) -> None:
    report = oc.verify(oc.compile(chain(count, name)), VALUES, cvxpylayers=False)
    assert report.ok, str(report)
    assert all(row.judged for row in report.gradients)
    assert ("the joint program" in str(report)) == (count < 3)


def test_a_loaded_layer_is_checked_against_the_rebuilt_programs(tmp_path: object) -> None:
    x = oc.Input(K, name="x")
    oc.save(oc.compile(oc.cycle([unit(k, x, name="tanh") for k in range(3)])), f"{tmp_path}/layer.opteq")
    report = oc.verify(oc.load(f"{tmp_path}/layer.opteq"), VALUES, gradients=False)
    assert report.ok, str(report)
    assert "rebuilt" in report.source


@pytest.mark.parametrize("count", [1, 3])
def test_a_layer_of_another_equilibrium_is_rejected(count: int) -> None:
    """The same names, a constant that differs: the programs at the tied values answer something else."""
    layer, other = oc.compile(chain(count)), oc.compile(chain(count, shift=0.1))
    layer.declaration = other.declaration
    report = oc.verify(layer, VALUES, gradients=False)
    assert not report.ok
    row = report.samples[0]
    assert row.distance > 1e-3 or "differ" in row.note


def test_a_player_with_constraints() -> None:
    """A game: players' own constraints, mutual and not symmetric influence; multipliers are each player's own."""
    rng = np.random.default_rng(5)
    x = oc.Input(3, name="x")
    u, v = cp.Variable(3, name="u"), cp.Variable(3, name="v")
    p, q = cp.Parameter(3, name="p"), cp.Parameter(3, name="q")
    A, B = rng.normal(size=(3, 3)) / 4, rng.normal(size=(3, 3)) / 4
    one = cp.Problem(cp.Minimize(cp.sum_squares(u) + (A @ p - x) @ u), [u >= 0, cp.sum(u) == 1])
    two = cp.Problem(cp.Maximize(-cp.sum_squares(v) + (B @ q + 1) @ v), [v <= 0.5])
    layer = oc.compile([one, two], ties={p: v, q: u}, outputs=[u, v])
    value = torch.as_tensor(rng.normal(size=(2, 3)))
    report = oc.verify(layer, value)
    assert report.ok, str(report)
    solution = layer.double().solve(value, tolerance=1e-10)
    for i in range(2):
        x.value, p.value, q.value = value[i].numpy(), *(t[i].detach().numpy() for t in reversed(solution.values))
        for problem in (one, two):
            problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
        np.testing.assert_allclose(solution.values[0][i].detach().numpy(), u.value, atol=1e-6)
        np.testing.assert_allclose(solution.values[1][i].detach().numpy(), v.value, atol=1e-6)
        duals = [*one.constraints, *two.constraints]
        for found, constraint in zip(solution.duals, duals, strict=True):
            np.testing.assert_allclose(found[i].detach().numpy(), constraint.dual_value, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_players_with_polyhedral_constraints(scale: float) -> None:
    """Rows that mix coordinates; with `scale` the game is monotone only in a metric D that favors one player."""
    rng = np.random.default_rng(9)
    x = oc.Input(3, name="x")
    u, v = cp.Variable(3, name="u"), cp.Variable(2, name="v")
    p, q = cp.Parameter(2, name="p"), cp.Parameter(3, name="q")
    G, H = rng.normal(size=(4, 3)), rng.normal(size=(2, 2))
    A = oc.Weight((3, 2), name="A", norm=0.5 * scale, init=scale * rng.normal(size=(3, 2)) / 8)
    B = oc.Weight((2, 3), name="B", norm=0.5 / scale, init=rng.normal(size=(2, 3)) / (8 * scale))
    one = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u) + (A @ p - x) @ u), [G @ u <= 0.3])
    two = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(v) + (B @ q + 1) @ v + cp.norm1(H @ v)), [cp.sum(v) == 0.2])
    layer = oc.compile([one, two], ties={p: v, q: u}, outputs=[u, v])
    assert layer.plan.name == "Douglas–Rachford"
    assert "no objective" in str(layer.plan)
    value = torch.as_tensor(rng.normal(size=(2, 3)))
    report = oc.verify(layer, value, samples=[0], gradients=False)
    assert report.ok, str(report)
    layer.write_back()
    given = value[1].clone().requires_grad_()
    tight = oc.compile([one, two], ties={p: v, q: u}, outputs=[u, v], tolerance=1e-12).double()
    move = torch.as_tensor(rng.normal(size=3))
    y = tight(given)[0]
    (slope,) = torch.autograd.grad(y.sum(), given)
    with torch.no_grad():
        above, below = (tight(given + h * move)[0].sum() for h in (1e-5, -1e-5))
    torch.testing.assert_close(slope @ move, (above - below) / 2e-5, rtol=1e-5, atol=1e-7)
    solution = layer.double().solve(value, tolerance=1e-10)
    x.value, p.value, q.value = value[1].numpy(), *(t[1].detach().numpy() for t in reversed(solution.values))
    for problem in (one, two):
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11, ignore_dpp=True)
    np.testing.assert_allclose(solution.duals[0][1].detach().numpy(), one.constraints[0].dual_value, atol=1e-5)
    np.testing.assert_allclose(solution.duals[1][1].detach().numpy(), two.constraints[0].dual_value, atol=1e-5)
