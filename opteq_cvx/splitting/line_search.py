"""A zero of the slope φ′ of a convex function along a line, sample by sample, from values of φ′ alone.

Slopes of augmented Lagrangians are nearly piecewise linear, with pieces whose steepness differs by many powers of
ten. A secant between the ends of a bracket creeps along such a kink; one through the last two points on the same side
of the zero meets it once both lie on the steep piece. Where neither has halved the bracket in two steps, it is
bisected, in the logarithm where its ends are far apart.
Source: Hager, Zhang, *A new conjugate gradient method with guaranteed descent and an efficient line search* (2005),
section 4 (secants of both kinds, then bisection).
"""

from collections.abc import Callable

import torch
from torch import Tensor

TRIES = 20  # evaluations of φ′ in one search
FLAT = 0.1  # a step is taken where |φ′| has fallen by this factor
EDGE = 0.1  # secants between the ends keep this share of the bracket from either
NEAR = 4.0  # ends within this factor of one another are bisected at their mean


def search(along: Callable[[Tensor], Tensor], at_zero: Tensor, noise: Tensor, found: Tensor) -> Tensor:
    """A step t (B,) with |φ′(t)| ≤ FLAT |φ′(0)|, or up to rounding; else the longest one known to descend.

    Args:
        along: φ′, (B,) → (B,), nondecreasing.
        at_zero: φ′(0) < 0 (B,).
        noise: the rounding error of φ′ (B,).
        found: samples that need no step; they get 0.
    """
    goal = torch.maximum(FLAT * at_zero.abs(), noise)
    low, high = torch.zeros_like(at_zero), torch.full_like(at_zero, torch.inf)
    slope_low, slope_high = at_zero, torch.full_like(at_zero, torch.inf)
    t, chosen = torch.ones_like(at_zero), torch.zeros_like(at_zero)
    before = last = torch.full_like(at_zero, torch.inf)  # widths of the bracket
    for _ in range(TRIES):
        slope = along(t).nan_to_num(torch.inf)
        good = ~found & (slope.abs() <= goal)
        chosen, found = torch.where(good, t, chosen), found | good
        if bool(found.all()):
            break
        above = slope > 0
        ahead = _meeting(t, slope, torch.where(above, high, low), torch.where(above, slope_high, slope_low))
        high, slope_high = torch.where(above, t, high), torch.where(above, slope, slope_high)
        low, slope_low = torch.where(above, low, t), torch.where(above, slope_low, slope)
        share = (-slope_low / (slope_high - slope_low)).nan_to_num(0.5).clamp(EDGE, 1.0 - EDGE)
        width = high - low
        secant = torch.where((ahead > low) & (ahead < high), ahead, low + share * width)
        slow = width > 0.5 * before
        before, last = torch.where(slow, torch.inf, last), torch.where(slow, torch.inf, width)
        t = torch.where(torch.isinf(high), 2.0 * t, torch.where(slow, _middle(low, high), secant))
    return torch.where(found, chosen, torch.where(low > 0, low, t))


def _meeting(t: Tensor, slope: Tensor, other: Tensor, its: Tensor) -> Tensor:
    """Where the line through two points of φ′ is 0; NaN or beyond the bracket where they tell nothing."""
    return t - slope * (t - other) / (slope - its)


def _middle(low: Tensor, high: Tensor) -> Tensor:
    """The mean of the ends, or of their logarithms, 0 counting as far below."""
    far = torch.where(low > 0, (low * high).sqrt(), EDGE * EDGE * high)
    return torch.where(high <= NEAR * low, 0.5 * (low + high), far)
