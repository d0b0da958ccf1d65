"""Proxes of smooth losses, entry by entry, against their optimality condition solved in 50 digits."""

import itertools
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch

from opteq_cvx.atoms import atom
from opteq_cvx.atoms.contract import Atom

EPS = 4e-15
"""A few units in the last place, and the conditioning of ln t and eˣ at the largest points."""

POINTS = (0.0, 1e-12, -1e-12, 0.3, -0.3, 1.0, -1.0, 5.0, -5.0, 40.0, -40.0, 1e4, -1e4, 1e8, -1e8)
STEPS = (1e-8, 1e-3, 0.7, 10.0, 1e5)

Slope = Callable[[Any], Any]
mp = mpmath.MPContext()
mp.dps = 50

LOSSES: dict[str, tuple[Atom, Slope, bool]] = {  # the derivative, and whether the domain is x > 0
    "exp": (atom("exp")(), mp.exp, False),
    "logistic": (atom("logistic")(), lambda x: 1 / (1 + mp.exp(-x)), False),
    "neg_log": (atom("neg_log")(), lambda x: -1 / x, True),
    "neg_entr": (atom("neg_entr")(), lambda x: 1 + mp.log(x), True),
    "inverse": (atom("power").from_static({"p": -1.0}), lambda x: -1 / x**2, True),
    "inverse square": (atom("power").from_static({"p": -2.0}), lambda x: -2 / x**3, True),
    "power 3/2": (atom("power").from_static({"p": 1.5}), lambda x: 1.5 * mp.sqrt(x), True),
    "power 3": (atom("power").from_static({"p": 3.0}), lambda x: 3 * x**2, True),
    "power 4": (atom("power").from_static({"p": 4.0}), lambda x: 4 * x**3, False),
    "root": (atom("neg_power").from_static({"p": 0.5}), lambda x: -0.5 / mp.sqrt(x), True),
    "quarter root": (atom("neg_power").from_static({"p": 0.25}), lambda x: -0.25 * x ** mp.mpf(-0.75), True),
    "xexp": (atom("xexp")(), lambda x: (1 + x) * mp.exp(x), True),
}


def root(slope: Slope, v: float, t: float, positive: bool) -> Any:
    """x with x + t·f'(x) = v, by bisection; the end of the domain where there is none."""
    low = mp.mpf(0) if positive else -abs(mp.mpf(v)) - t - 60
    high = min(abs(mp.mpf(v)), mp.mpf(10) ** 9) + t + 60
    for _ in range(300):
        middle = (low + high) / 2
        if middle + t * slope(middle) > v:
            high = middle
        else:
            low = middle
    return low


@pytest.mark.parametrize("name", LOSSES)
def test_prox_solves_the_optimality_condition(name: str) -> None:
    f, slope, positive = LOSSES[name]
    pairs = list(itertools.product(POINTS, STEPS))
    v, t = (torch.tensor(c, dtype=torch.float64) for c in zip(*pairs, strict=True))
    x = f.prox(v, t, {})
    for i, (point, step) in enumerate(pairs):
        exact = root(slope, point, step, positive)
        error = float(abs(mp.mpf(float(x[i])) - exact))
        assert error <= EPS * (float(abs(exact)) + min(1.0, abs(point))), (point, step, float(x[i]))


@pytest.mark.parametrize(("p", "absolute"), [(4.0, False), (8.0, False), (3.0, True), (2.0, True), (1.5, True)])
def test_an_even_power_has_its_two_sided_derivative_at_zero(p: float, absolute: bool) -> None:
    """Of the point and the step, against central differences; |x|^p is smooth at 0, and so is its prox."""
    f, h = atom("power").from_static({"p": p, "absolute": absolute}), 1e-6
    v = torch.tensor([0.0, 0.5, -0.5], dtype=torch.float64, requires_grad=True)
    t = torch.full((3,), 0.7, dtype=torch.float64, requires_grad=True)
    by_v, by_t = torch.autograd.grad(f.prox(v, t, {}).sum(), (v, t))
    with torch.no_grad():
        want_v = (f.prox(v + h, t, {}) - f.prox(v - h, t, {})) / (2 * h)
        want_t = (f.prox(v, t + h, {}) - f.prox(v, t - h, {})) / (2 * h)
    torch.testing.assert_close(by_v, want_v, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(by_t, want_t, atol=1e-5, rtol=1e-5)
