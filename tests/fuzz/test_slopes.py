"""The verdict on a derivative, by differences of functions whose derivatives are known."""

from collections.abc import Callable

import pytest

from tests.fuzz.slopes import judged

FAR, NEAR = 1e-2, 2e-6


def bent(at: float) -> Callable[[float], float]:
    """Slope 1 at 0, and 3 from `at` on."""
    return lambda t: t + 2.0 * max(t - at, 0.0)


@pytest.mark.parametrize(
    ("phi", "slope", "verdict"),
    [
        (lambda t: 2.0 * t + t * t, 2.0, "right"),
        (lambda t: 2.0 * t + t * t, 2.1, "wrong"),
        (lambda t: abs(t), 1.0, "unchecked"),
        (bent(FAR), 1.0, "right"),
        (bent(FAR), 3.0, "wrong"),
        (lambda t: float("nan"), 1.0, "unchecked"),
        (lambda t: 2.0 * t if abs(t) < NEAR else 3.0 * t, 2.0, "right"),  # the first steps, 1e-4 and 2e-5, see 3
        (lambda t: 2.0 * t if abs(t) < NEAR else 3.0 * t, 7.0, "unchecked"),
    ],
)
def test_verdicts(phi: Callable[[float], float], slope: float, verdict: str) -> None:
    assert judged(slope, phi, None).split()[0].rstrip(":") == verdict
