"""Differences against known derivatives: accuracy, honest errors, kinks, edges of the domain."""

import numpy as np
import pytest

from opteq_cvx.errors import UnsupportedError
from opteq_cvx.verify.differences import difference
from opteq_cvx.verify.tangent import curve


@pytest.mark.parametrize(
    ("phi", "truth"),
    [
        (np.sin, 1.0),
        (np.exp, 1.0),
        (lambda t: (1 + t) ** 3, 3.0),
        (lambda t: np.tanh(50 * t), 50.0),
        (lambda t: 2.0, 0.0),
    ],
    ids=["sin", "exp", "cubic", "steep", "constant"],
)
def test_smooth_functions(phi: object, truth: float) -> None:
    found = difference(lambda t: float(phi(t)))
    assert found.usable
    assert abs(found.value - truth) <= found.error
    assert found.error <= 1e-6 * max(1.0, truth)


@pytest.mark.parametrize("amplitude", [1e-12, 1e-9])
def test_the_error_covers_rounding(amplitude: float) -> None:
    rng = np.random.default_rng(0)
    found = difference(lambda t: float(np.sin(t) + amplitude * 0.05 * rng.uniform(-1, 1)))
    assert abs(found.value - 1.0) <= 20 * found.error + amplitude * 1e3


@pytest.mark.parametrize("phi", [abs, lambda t: max(t, 0.0), lambda t: np.sin(t) + 0.01 * abs(t)])
def test_a_kink_is_no_derivative(phi: object) -> None:
    found = difference(lambda t: float(phi(t)))
    assert found.kink
    assert not found.usable
    assert "not differentiable" in found.note


def test_a_kink_nearby_is_stepped_around() -> None:
    """φ has a kink at 1e-4: the first steps cross it, the smaller ones do not."""
    found = difference(lambda t: float(t + max(t - 1e-4, 0.0)))
    assert found.usable
    assert found.value == pytest.approx(1.0, abs=1e-8)


def test_the_edge_of_the_domain_is_said() -> None:
    found = difference(lambda t: float("nan") if t > 0 else t)
    assert not found.usable
    assert found.note
    assert difference(lambda t: float("nan")).note
    inner = difference(lambda t: float("nan") if abs(t) > 5e-4 else float(np.sin(t)))
    assert inner.value == pytest.approx(1.0, abs=1e-8)


def _value(name: str) -> tuple[np.ndarray, dict[str, object]]:
    rng = np.random.default_rng(0)
    square = rng.normal(size=(4, 4))
    orthogonal = np.linalg.qr(square)[0]
    return {
        "plain": (square, {}),
        "scalar": (np.array(0.3), {"nonneg": True}),
        "nonneg": (np.array([0.0, 1.0, 2.0]), {"nonneg": True}),
        "nonpos": (np.array([0.0, -1.0, -2.0]), {"nonpos": True}),
        "symmetric": (square + square.T, {"symmetric": True}),
        "psd": (square[:, :2] @ square[:, :2].T, {"PSD": True}),
        "nsd": (-square[:, :2] @ square[:, :2].T, {"NSD": True}),
        "diag": (np.diag([1.0, 2.0, 3.0, 4.0]), {"diag": True}),
        "sparsity": (np.array([[0.0, 2.0], [0.0, 1.0]]), {"sparsity": ((0, 1), (1, 1))}),
        "bounds": (np.array([0.0, 0.5, 1.0]), {"bounds": (0.0, 1.0)}),
        "norm": (0.95 * orthogonal, {"norm": 0.95}),
        "orthogonal": (orthogonal, {"orthogonal": True}),
    }[name]  # type: ignore[return-value]


INSIDE = {
    "plain": lambda x: True,
    "scalar": lambda x: x >= 0,
    "nonneg": lambda x: x.min() >= 0,
    "nonpos": lambda x: x.max() <= 0,
    "symmetric": lambda x: np.array_equal(x, x.T),
    "psd": lambda x: np.linalg.eigvalsh(x)[0] > -1e-14,
    "nsd": lambda x: np.linalg.eigvalsh(x)[-1] < 1e-14,
    "diag": lambda x: np.array_equal(x, np.diag(np.diag(x))),
    "sparsity": lambda x: (x[:, 0] == 0).all(),
    "bounds": lambda x: x.min() >= 0 and x.max() <= 1,
    "norm": lambda x: np.linalg.norm(x, 2) < 0.95 + 1e-14,
    "orthogonal": lambda x: np.abs(x.T @ x - np.eye(4)).max() < 1e-13,
}


@pytest.mark.parametrize("name", INSIDE)
def test_curves_stay_in_their_set_and_have_their_direction(name: str) -> None:
    value, attributes = _value(name)
    lean = np.asarray(np.random.default_rng(1).normal(size=value.shape))
    path = curve(value, attributes, lean)
    assert np.sum(lean * path.direction) >= 0.0
    assert np.linalg.norm(path.direction) == pytest.approx(1.0)
    np.testing.assert_allclose(path.at(0.0), value, atol=1e-15)
    h = 1e-5
    np.testing.assert_allclose((path.at(h) - path.at(-h)) / (2 * h), path.direction, atol=1e-8)
    for t in (-1e-3, 1e-3):
        assert path.at(t).shape == value.shape
        assert INSIDE[name](path.at(t))


def test_a_value_on_the_boundary_does_not_move() -> None:
    path = curve(np.zeros(3), {"nonneg": True}, np.ones(3))
    assert not path.direction.any()


@pytest.mark.parametrize("attribute", ["integer", "boolean"])
def test_a_discrete_value_has_no_curve(attribute: str) -> None:
    with pytest.raises(UnsupportedError, match=f"the attribute {attribute}"):
        curve(np.ones(3), {attribute: True}, np.ones(3))
