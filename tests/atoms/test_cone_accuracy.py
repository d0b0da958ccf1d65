"""Projections onto the exponential and power cones against 50 digits: Newton's method on the optimality conditions of
the nearest point of the boundary, in mpmath, from our answer.

The measured ulps, of the largest entry of the point, are rows of the table in docs/limits.md.
"""

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from opteq_cvx.atoms import atom

mp = mpmath.MPContext()
mp.dps = 50
ULPS, SAMPLES, LEAST = 6.0, 120, 20
Number = mpmath.mpf
Equations = Callable[..., list[Number]]


def exponential(a: list[Number]) -> Equations:
    """x − a + m∇g = 0 and g = 0 for g = y·exp(x/y) − z."""

    def equations(x: Number, y: Number, z: Number, m: Number) -> list[Number]:
        e = mp.exp(x / y)
        return [x - a[0] + m * e, y - a[1] + m * e * (1 - x / y), z - a[2] - m, y * e - z]

    return equations


def power(a: list[Number], alpha: Number) -> Equations:
    """The same for g = |z| − x^α y^(1−α), z of the sign of a₂."""
    sign = 1 if a[2] > 0 else -1

    def equations(x: Number, y: Number, z: Number, m: Number) -> list[Number]:
        mean = x**alpha * y ** (1 - alpha)
        return [
            x - a[0] - m * alpha * mean / x,
            y - a[1] - m * (1 - alpha) * mean / y,
            z - a[2] + m * sign,
            sign * z - mean,
        ]

    return equations


def points(dtype: torch.dtype) -> Tensor:
    g = torch.Generator().manual_seed(0)
    sizes = 10.0 ** torch.randint(-3, 4, (SAMPLES, 1), generator=g).double()
    return (torch.randn(SAMPLES, 3, generator=g, dtype=torch.float64) * sizes).to(dtype)


def worst(v: Tensor, x: Tensor, equations: Callable[[list[Number]], Equations]) -> tuple[float, int]:
    """The largest error in ulps of the largest entry, and of how many points on the curved boundary."""
    found, count, eps = 0.0, 0, torch.finfo(v.dtype).eps
    for a, b in zip(v.double().tolist(), x.double().tolist(), strict=True):
        size = max(map(abs, a))
        inside, corner = np.allclose(a, b, rtol=1e-7, atol=0), min(abs(b[0]), abs(b[1]), abs(b[2])) < 1e-6 * size
        if inside or corner or b[1] <= 0:  # nothing curved there: the point itself, a face or 0
            continue
        system = equations([mp.mpf(q) for q in a])
        start = [mp.mpf(q) for q in b] + [mp.mpf(abs(b[2] - a[2]))]
        exact = mp.findroot(system, start, tol=1e-30, maxsteps=80)
        found = max(found, max(float(abs(exact[i] - mp.mpf(b[i]))) for i in range(3)) / (eps * size))
        count += 1
    return found, count


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_exponential_cone(dtype: torch.dtype) -> None:
    v = points(dtype)
    ulps, count = worst(v, atom("exp_cone")().prox(v, v.new_ones(1, 1), {}), exponential)
    assert count >= LEAST
    assert ulps <= ULPS


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_power_cone(dtype: torch.dtype, alpha: float) -> None:
    v, a = points(dtype), torch.tensor([[alpha]], dtype=dtype)
    x = atom("pow_cone")().prox(v, v.new_ones(1, 1), {"alpha": a})
    ulps, count = worst(v, x, lambda p: power(p, mp.mpf(float(a))))
    assert count >= LEAST
    assert ulps <= ULPS
