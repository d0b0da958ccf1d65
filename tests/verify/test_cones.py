"""Charts of cones: complementary pairs, slopes by differences, projections by CVXPY."""

import cvxpy as cp
import numpy as np
import pytest

from opteq_cvx.verify.cones import (
    Chart,
    ExponentialBoundary,
    Fixed,
    Nonneg,
    PowerBoundary,
    SecondOrder,
    Semidefinite,
    Zero,
)

CHARTS: dict[str, Chart] = {
    "zero": Zero(3),
    "nonneg": Nonneg(4),
    "soc": SecondOrder(4),
    "psd": Semidefinite.of(3),
    "slack": Fixed(3, slack=True),
    "pressed": Fixed(3, slack=False),
    "exp": ExponentialBoundary(),
    "pow": PowerBoundary(0.3, -1.0),
}


def _point(chart: Chart, seed: int) -> np.ndarray:
    w = np.random.default_rng(seed).normal(size=chart.size)
    return np.abs(w) + 0.1 if isinstance(chart, PowerBoundary) else w


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", CHARTS)
def test_slopes_are_those_of_differences(name: str, seed: int) -> None:
    chart, h = CHARTS[name], 1e-6
    w = _point(chart, seed)
    slopes = chart.jacobian(w)
    for k, unit in enumerate(np.eye(chart.size)):
        above, below = chart.pair(w + h * unit), chart.pair(w - h * unit)
        for slope, up, down in zip(slopes, above, below, strict=True):
            np.testing.assert_allclose(slope[:, k], (up - down) / (2 * h), atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", CHARTS)
def test_pairs_are_complementary_and_start_inverts(name: str, seed: int) -> None:
    chart = CHARTS[name]
    s, z = chart.pair(_point(chart, seed))
    assert s @ z == pytest.approx(0.0, abs=1e-12)
    again = chart.pair(chart.start(s, z))
    np.testing.assert_allclose(again[0], s, atol=1e-12)
    np.testing.assert_allclose(again[1], z, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["nonneg", "soc", "psd"])
def test_projections_are_cvxpys(name: str, seed: int) -> None:
    chart = CHARTS[name]
    w = _point(chart, seed)
    x = cp.Variable(chart.size)
    basis = np.stack([np.array(Semidefinite.of(3).matrix(e)).reshape(-1) for e in np.eye(6)], axis=1)
    inside = {
        "nonneg": lambda: [x >= 0],
        "soc": lambda: [cp.SOC(x[0], x[1:])],
        "psd": lambda: [cp.reshape(basis @ x, (3, 3), order="C") >> 0],
    }[name]()
    cp.Problem(cp.Minimize(cp.sum_squares(x - w)), inside).solve(
        solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11
    )
    np.testing.assert_allclose(chart.pair(w)[0], x.value, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_boundary_pairs_lie_in_their_cones(seed: int) -> None:
    r, y, mu = _point(CHARTS["exp"], seed)
    s, z = CHARTS["exp"].pair(np.array([r, abs(y), abs(mu)]))
    assert s[1] * np.exp(s[0] / s[1]) == pytest.approx(s[2])
    assert z[0] < 0
    assert -z[0] * np.exp(z[1] / z[0]) == pytest.approx(np.e * z[2])  # the dual cone's own surface
    s, z = CHARTS["pow"].pair(_point(CHARTS["pow"], seed))
    assert s[0] ** 0.3 * s[1] ** 0.7 == pytest.approx(abs(s[2]))
    assert (z[0] / 0.3) ** 0.3 * (z[1] / 0.7) ** 0.7 == pytest.approx(abs(z[2]))
