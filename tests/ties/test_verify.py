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
