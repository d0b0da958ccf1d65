"""The logistic prox against mpmath, over twelve decades of steps, in both precisions."""

import mpmath
import pytest
import torch

from opteq_cvx.atoms.logistic import Logistic

STEPS = [1e-12, 1e-3, 0.5, 30.0, 1e4, 1e8, 1e12]


def exact(v: float, t: float) -> mpmath.mpf:
    """The root of x + t/(1 + e⁻ˣ) = v by bisection in 60 digits."""
    with mpmath.workdps(60):
        low, high = mpmath.mpf(v) - mpmath.mpf(t), mpmath.mpf(v)
        for _ in range(220):
            x = (low + high) / 2
            low, high = (x, high) if x + t / (1 + mpmath.exp(-x)) < v else (low, x)
        return (low + high) / 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("t", STEPS)
def test_the_root_is_good_to_rounding(t: float, dtype: torch.dtype) -> None:
    """In units of rounding of the data, times the condition of the root: dx = (|v| + t)·eps / (1 + tσ')."""
    points = [-40.0, -1.3, 0.0, 0.2, 5.0, 0.3 * t, 0.5 * t, 0.6 * t, 0.9 * t, 0.999 * t, t, t + 3.0, 2 * t + 1.0]
    v, step = torch.tensor(points, dtype=dtype), torch.full((1,), t, dtype=dtype)
    found, eps = Logistic().prox(v, step, {}), torch.finfo(dtype).eps
    for x, value in zip(found.tolist(), v.tolist(), strict=True):
        want = exact(value, float(step))
        with mpmath.workdps(60):
            slope = 1 + mpmath.mpf(float(step)) / (2 + mpmath.exp(want) + mpmath.exp(-want))
            bound = 8 * eps * (abs(want) + (abs(value) + float(step)) / slope)
            assert abs(x - want) <= bound, (value, x, float(want))
