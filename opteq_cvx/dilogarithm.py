"""The dilogarithm Li₂, which the primitives of softplus and log-sigmoid need and torch has not."""

import math

import torch
from torch import Tensor

PI2_6 = math.pi**2 / 6.0


def dilogarithm(z: Tensor) -> Tensor:
    """Li₂(z) = Σ zᵏ/k² for z ≤ 1, to rounding.

    Source: Abramowitz, Stegun, 27.7; the series in −ln(1 − z) with Bernoulli numbers, after reflections at ½ and −1.
    """
    large, small = z > 0.5, z < -1.0
    inverse = 1.0 / torch.where(small, z, -1.0)
    w = torch.where(large, 1.0 - z, torch.where(small, inverse, z))
    series = _near_zero(w)
    log, rest = torch.log(torch.where(large, z, 1.0)), torch.log1p(-torch.where(large, z, 0.0))
    reflected = PI2_6 - torch.where(large & (z < 1.0), log * rest, 0.0) - series
    flipped = -PI2_6 - 0.5 * torch.log(-torch.where(small, z, -1.0)) ** 2 - series
    return torch.where(large, reflected, torch.where(small, flipped, series))


_BERNOULLI = (
    1.0 / 36.0,
    -1.0 / 3600.0,
    1.0 / 211680.0,
    -1.0 / 10886400.0,
    1.0 / 526901760.0,
    -691.0 / 16999766784000.0,
    1.0 / 1120863744000.0,
    -3617.0 / 181400588328960000.0,
    43867.0 / 97072790126247936000.0,
)


def _near_zero(z: Tensor) -> Tensor:
    """Li₂ on [−1, ½]: u − u²/4 + Σ B₂ₖ u²ᵏ⁺¹/(2k + 1)! with u = −ln(1 − z)."""
    u = -torch.log1p(-z)
    square, total = u * u, torch.zeros_like(u)
    for c in reversed(_BERNOULLI):
        total = (total + c) * square
    return u - square / 4.0 + u * total
