"""Bounds that must never be violated, at random points."""

import cvxpy as cp
import numpy as np
import pytest

from opteq_cvx.verify.certificates import distance_bound, fenchel_gap
from opteq_cvx.verify.exact import solve_exact

SLACK = 1e-9


def _soft(v: np.ndarray, step: float) -> np.ndarray:
    return np.sign(v) * np.maximum(np.abs(v) - 0.3 * step, 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_holds_and_is_not_idle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    G, c = rng.normal(size=(7, 5)), rng.normal(size=5)
    P = G.T @ G
    u = cp.Variable(5)
    cost = 0.5 * cp.sum_squares(G @ u) - c @ u + 0.3 * cp.norm1(u)
    exact = solve_exact(cp.Problem(cp.Minimize(cost)), [u])
    truth = exact.outputs[0]
    for scale in np.logspace(-6, 1, 100):
        found = distance_bound(P, c, _soft, truth + scale * rng.normal(size=5))
        value = 0.5 * found.point @ P @ found.point - c @ found.point + 0.3 * np.abs(found.point).sum()
        assert np.linalg.norm(found.point - truth) <= found.distance + SLACK
        assert value - exact.objective <= found.objective + SLACK
    at = distance_bound(P, c, _soft, truth)
    assert at.distance < 1e-9
    assert 0.0 < at.modulus <= np.linalg.eigvalsh(P)[0]


def test_without_a_modulus_nothing_is_certified() -> None:
    P = np.diag([1.0, 0.0])
    assert distance_bound(P, np.zeros(2), _soft, np.ones(2)).distance == np.inf
    assert distance_bound(-np.eye(2), np.zeros(2), _soft, np.ones(2)).distance == np.inf


def test_the_fenchel_gap_is_zero_at_subgradients_only() -> None:
    """f = ½‖·‖² is its own conjugate: the gap is ½‖u − y‖²."""
    rng = np.random.default_rng(0)
    u, y = rng.normal(size=4), rng.normal(size=4)
    gap = fenchel_gap(0.5 * float(u @ u), 0.5 * float(y @ y), u, y)
    assert gap == pytest.approx(0.5 * np.sum((u - y) ** 2))
    assert fenchel_gap(0.5 * float(u @ u), 0.5 * float(u @ u), u, u) == pytest.approx(0.0, abs=1e-15)
