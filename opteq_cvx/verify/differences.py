"""The oracle for gradients: central differences of the exact solver, extrapolated, with an error estimate and
a kink test.

D(h) = (φ(h) − φ(−h)) / 2h has an error of h² φ‴/6; D(h) + (D(h) − D(rh)) / (r² − 1) one of h⁴ (Richardson).
The steps h shrink by r until two extrapolations agree. At a kink the second difference (φ(h) − 2φ(0) + φ(−h))
/ h, the jump between the one-sided derivatives, does not shrink with h, and no derivative is reported.
Source: C. J. F. Ridders, "Accurate computation of F'(x) and F'(x)F''(x)", Adv. Eng. Software 4, 1982.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RATIO = 5.0
"""r: how much a step shrinks from one level to the next."""

LEVELS = 4
"""Steps tried, the first included: 1e-3, 2e-4, 4e-5, 8e-6 times the scale."""

FIRST_STEP = 1e-3
"""The largest step, relative to the scale of the point."""

NOISE = 1e-13
"""Relative accuracy of φ from a polished exact solve; the rounding error of D(h) is NOISE · |φ| / h."""

KINK_SHRINK = 0.5
"""The one-sided gap of a smooth φ shrinks by 1/r = 0.2 a level; a gap above this fraction of the last is a
kink's."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A directional derivative: its estimate, the estimated absolute error, and whether φ has a kink there.

    `value` is NaN where φ could not be evaluated on both sides (`note` says why).
    """

    value: float
    error: float
    kink: bool = False
    note: str = ""

    @property
    def usable(self) -> bool:
        """Whether it can judge a gradient."""
        return bool(np.isfinite(self.value)) and not self.kink


def difference(
    phi: Callable[[float], float], middle: float | None = None, *, scale: float = 1.0, target: float = 1e-9
) -> Difference:
    """dφ/dt at t = 0; NaN values of φ mean that it is undefined there.

    Args:
        phi: A function of one number, accurate to rounding; each call is an exact solve.
        middle: φ(0), where it is known.
        scale: The size of t over which φ may change noticeably.
        target: Absolute error at which no smaller step is tried.
    """
    middle = phi(0.0) if middle is None else middle
    if not np.isfinite(middle):
        return Difference(np.nan, np.inf, note="no exact solution at the point itself")
    best = Difference(np.nan, np.inf, note="no exact solution beside the point")
    central: list[float] = []
    gaps: list[float] = []
    floor = 0.0
    for level in range(LEVELS):
        h = FIRST_STEP * scale / RATIO**level
        above, below = phi(h), phi(-h)
        if not (np.isfinite(above) and np.isfinite(below)):
            central, gaps = [], []
            continue
        floor = NOISE * max(abs(middle), abs(above), abs(below), 1.0) / h
        central.append((above - below) / (2.0 * h))
        gaps.append(abs(above - 2.0 * middle + below) / h)
        if len(central) < 2:
            continue
        change = central[-1] - central[-2]
        refined = central[-1] + change / (RATIO**2 - 1.0)
        error = abs(refined - central[-1]) + floor
        if error < best.error:
            best = Difference(refined, error)
        if error <= target:
            break
    if len(central) == 1 and not np.isfinite(best.value):
        best = Difference(central[0], abs(gaps[0]) + floor, note="one step only")
    threshold = 1e-6 * max(1.0, abs(best.value)) + 8.0 * floor
    kink = len(gaps) > 1 and gaps[-1] > max(KINK_SHRINK * gaps[-2], threshold)
    note = "not differentiable in this direction" if kink else best.note
    return Difference(best.value, best.error, bool(kink), note)
