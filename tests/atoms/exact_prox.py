"""Proxes in 50 digits, by bisection of one optimality condition; and how far ours are from them, in ulps.

For functions entry by entry the error is divided by eps(|x| + |∂x/∂v||v| + |∂x/∂t|t): the rounding of the result and
what rounding of the point and the step does to it. For functions of vectors it is divided by eps·max(‖v‖∞, ‖x‖∞, t·g)
with g the size of the gradient at x.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import torch

from opteq_cvx.atoms import atom
from opteq_cvx.atoms.contract import Atom

mp = mpmath.MPContext()
mp.dps = 50

SIZES = (0.0, 1e-12, 1e-6, 1e-3, 0.3, 1.0, 3.0, 40.0, 1e4, 1e8)
STEPS = (1e-12, 1e-8, 1e-3, 0.7, 10.0, 1e5, 1e8)
Number = Any


def bisect(rising: Callable[[Number], Number], low: Number, high: Number, halvings: int = 220) -> Number:
    """The root of an increasing function; an end where there is none."""
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


@dataclass(frozen=True, slots=True)
class Scalar:
    """A function entry by entry: the atom, f', f'', and whether its domain is x ≥ 0."""

    atom: Atom
    slope: Callable[[Number], Number]
    curvature: Callable[[Number], Number]
    positive: bool = False

    def exact(self, v: Number, t: Number) -> tuple[Number, Number]:
        """x with x + t f'(x) = v, and the scale of its error."""

        def rising(x: Number) -> Number:
            return x + t * self.slope(x) - v

        if self.positive:
            lowest = mp.mpf(10) ** -700
            if rising(lowest) >= 0:
                x = mp.mpf(0) if rising(mp.mpf(10) ** -5000) >= 0 else lowest
                return x, abs(x)
            top = mp.log(abs(v) + t + 100) + 10
            x = mp.exp(bisect(lambda z: rising(mp.exp(z)), mp.log(lowest), top))
        else:
            reach = abs(v) + t + 100
            small = mp.mpf(10) ** -60
            if rising(small) > 0 > rising(-small):
                return mp.mpf(0), abs(v)
            if rising(mp.mpf(0)) < 0:
                x = mp.exp(bisect(lambda z: rising(mp.exp(z)), mp.log(small), mp.log(reach)))
            else:
                x = -mp.exp(bisect(lambda z: -rising(-mp.exp(z)), mp.log(small), mp.log(reach)))
        rate = 1 / (1 + t * self.curvature(x))
        return x, abs(x) + rate * (abs(v) + t * abs(self.slope(x)))


def _sigmoid(x: Number) -> Number:
    return 1 / (1 + mp.exp(-x))


def _power(p: float) -> Scalar:
    q = mp.mpf(p)
    even = p > 1 and p % 2 == 0
    f = atom("power").from_static({"p": p})
    return Scalar(f, lambda x: q * x ** (q - 1), lambda x: q * (q - 1) * x ** (q - 2), not even)


def _root(p: float) -> Scalar:
    q = mp.mpf(p)
    f = atom("neg_power").from_static({"p": p})
    return Scalar(f, lambda x: -q * x ** (q - 1), lambda x: -q * (q - 1) * x ** (q - 2), True)


SCALARS: Mapping[str, Scalar] = {
    "exp": Scalar(atom("exp")(), mp.exp, mp.exp),
    "logistic": Scalar(atom("logistic")(), _sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x)),
    "neg_log": Scalar(atom("neg_log")(), lambda x: -1 / x, lambda x: 1 / x**2, True),
    "neg_entr": Scalar(atom("neg_entr")(), lambda x: 1 + mp.log(x), lambda x: 1 / x, True),
    "inv_pos": _power(-1.0),
    "power(x, -2)": _power(-2.0),
    "power(x, 1.5)": _power(1.5),
    "power(x, 3)": _power(3.0),
    "power(x, 4)": _power(4.0),
    "-sqrt": _root(0.5),
    "-power(x, 0.25)": _root(0.25),
    "xexp": Scalar(atom("xexp")(), lambda x: (1 + x) * mp.exp(x), lambda x: (2 + x) * mp.exp(x), True),
}

Exact = Callable[[Sequence[Number], Number], tuple[list[Number], Number]]


def kl_div(v: Sequence[Number], t: Number) -> tuple[list[Number], Number]:
    """[x, y] with x + t ln(x/y) = v, y + t(1 − x/y) = w, by z = ln(x/y): rising where y > 0."""
    p, w = v

    def rising(z: Number) -> Number:
        return mp.exp(z) * (w + t * mp.expm1(z)) + t * z - p

    low = mp.log1p(-w / t) if w < t else -(abs(p) + abs(w) + t + 100) / t - 100
    high = max(low, mp.log(abs(w) / t + mp.sqrt(abs(p) / t) + 10)) + 10
    z = bisect(rising, low, high)
    y = w + t * mp.expm1(z)
    return [mp.exp(z) * y, y], t * (abs(z) + mp.exp(z))


def rel_entr(v: Sequence[Number], t: Number) -> tuple[list[Number], Number]:
    """As kl_div, tilted."""
    x, size = kl_div([v[0] - t, v[1] + t], t)
    return x, size + t


def log_sum_exp(v: Sequence[Number], t: Number) -> tuple[list[Number], Number]:
    """xᵢ + t·exp(xᵢ − L) = vᵢ with L = ln Σ eˣ: by the root in L, and the root of each entry in it."""

    def entry(a: Number, level: Number) -> Number:
        z = a - level + mp.log(t)
        if z < -200:
            return mp.exp(z)
        w = mp.mpf(1) if z < 1 else z - mp.log(z) if z > 3 else z
        for _ in range(60):
            step = (w + mp.log(w) - z) / (1 + 1 / w)
            w = w - step if w > step else w / 2
            if abs(step) < abs(w) * mp.mpf(10) ** -48:
                break
        return w

    def rising(level: Number) -> Number:
        return t - sum(entry(a, level) for a in v)

    low, high = max(v) - t - 1, max(v) + mp.log(len(v)) + 1
    level = bisect(rising, low, high, 40)
    for _ in range(8):
        w = [entry(a, level) for a in v]
        level = level + (sum(w) - t) / sum(a / (1 + a) for a in w)
    assert abs(rising(level)) <= t * mp.mpf(10) ** -30
    return [a - entry(a, level) for a in v], t


def quad_over_lin(v: Sequence[Number], t: Number) -> tuple[list[Number], Number]:
    """[x, y] with x(1 + 2t/y) = v, y − t‖x‖²/y² = w; 0 where w ≤ −‖v‖²/4t."""
    *p, w = v
    square = sum(a * a for a in p)
    if w <= -square / (4 * t):
        return [mp.mpf(0)] * len(v), mp.mpf(0)
    top = abs(w) + square / t + (t * square) ** (mp.mpf(1) / 3) + 1
    y = mp.exp(bisect(lambda z: mp.exp(z) - t * square / (mp.exp(z) + 2 * t) ** 2 - w, mp.mpf(-400), mp.log(top)))
    return [*(a * y / (y + 2 * t) for a in p), y], mp.mpf(0)


def neg_geo_mean(v: Sequence[Number], t: Number) -> tuple[list[Number], Number]:
    """xᵢ = (vᵢ + √(vᵢ² + 4tg/n))/2 with g their geometric mean."""
    n = len(v)

    def entries(g: Number) -> list[Number]:
        # the sum of numbers of one sign in both cases
        q = 4 * t * g / n
        return [(a + mp.sqrt(a * a + q)) / 2 if a >= 0 else q / 2 / (mp.sqrt(a * a + q) - a) for a in v]

    def rising(z: Number) -> Number:
        return z - sum(mp.log(x) for x in entries(mp.exp(z))) / n

    return entries(mp.exp(bisect(rising, mp.mpf(-700), mp.log(max(map(abs, v)) + t + 10)))), mp.mpf(0)


def inv_prod(v: Sequence[Number], t: Number) -> tuple[list[Number], Number]:
    """xᵢ = (vᵢ + √(vᵢ² + 4k))/2 with k = t/Π x, by ln k."""

    def entries(k: Number) -> list[Number]:
        return [(a + mp.sqrt(a * a + 4 * k)) / 2 if a >= 0 else 2 * k / (mp.sqrt(a * a + 4 * k) - a) for a in v]

    def rising(z: Number) -> Number:
        return z - mp.log(t) + sum(mp.log(x) for x in entries(mp.exp(z)))

    return entries(mp.exp(bisect(rising, mp.mpf(-700), mp.mpf(700)))), mp.mpf(0)


def _neg_pnorm(p: float) -> Exact:
    """xᵢ − k·xᵢ^(p−1) = vᵢ, xᵢ by its logarithm, with k = t·‖x‖^(1−p), by ln k; max(v, 0) in the dual set."""
    power = mp.mpf(p)
    dual = power / (power - 1)

    def norm(x: Sequence[Number], r: Number) -> Number:
        return mp.mpf(0) if r < 0 and min(x) == 0 else sum(a**r for a in x if a > 0) ** (1 / r)

    def newton(a: Number, k: Number) -> Number:
        """The equation is concave: from below, each step stays below."""
        x = _close(a, k, power)
        for _ in range(80):
            fall = k * x ** (power - 1)
            step = (x - fall - a) / (1 + (1 - power) * fall / x)
            x = x - step
            if abs(step) < x * mp.mpf(10) ** -30:
                break
        return x

    def solve(v: Sequence[Number], t: Number) -> tuple[list[Number], Number]:
        if norm([max(-a, mp.mpf(0)) for a in v], dual) >= t:
            return [max(a, mp.mpf(0)) for a in v], mp.mpf(0)
        z = bisect(
            lambda z: z - mp.log(t) - (1 - power) * mp.log(norm([newton(a, mp.exp(z)) for a in v], power)),
            mp.mpf(-200),
            mp.mpf(100),
            110,
        )
        return [newton(a, mp.exp(z)) for a in v], mp.mpf(0)

    return solve


def _close(a: Number, k: Number, power: Number) -> Number:
    """Below the root of x − k·x^(power − 1) = a, by a bound that is close on both sides of a = 0."""
    middle = k ** (1 / (2 - power))
    return max(a, middle) if a >= 0 else (k / (middle - a)) ** (1 / (1 - power))


def _pnorm(p: float) -> Exact:
    """xᵢ = s·yᵢ with s·yᵢ + t·yᵢ^(p−1) = |vᵢ|, by ln s with ‖y‖_p = 1."""
    power = mp.mpf(p)
    dual = power / (power - 1)

    def solve(v: Sequence[Number], t: Number) -> tuple[list[Number], Number]:
        sizes = [abs(a) for a in v]
        if sum(a**dual for a in sizes) ** (1 / dual) <= t:
            return [mp.mpf(0)] * len(v), mp.mpf(0)

        def entry(a: Number, s: Number) -> tuple[Number, Number]:
            """y and −d ln y/d ln s, by Newton in z = ln y: ln(s·eᶻ + t·e^((p−1)z)) = ln a has slopes of 1 to p − 1."""
            if a == 0:
                return a, a
            z, step = min(mp.log(a / s), mp.log(a / t) / (power - 1)), mp.mpf(1)
            while abs(step) > mp.mpf(10) ** -25:  # the next error is its square
                first, second = s * mp.exp(z), t * mp.exp((power - 1) * z)
                step = mp.log((first + second) / a) * (first + second) / (first + (power - 1) * second)
                z -= step
            return mp.exp(z), first / (first + (power - 1) * second)

        high = mp.log(sum(a**power for a in sizes)) / power
        low, z, here = high - 200, high - mp.mpf(1) / 2, mp.mpf(1)
        while abs(here) > mp.mpf(10) ** -25:
            found = [entry(a, mp.exp(z)) for a in sizes]
            total = sum(y**power for y, _ in found)
            here = mp.log(total) / power
            low, high = (z, high) if here > 0 else (low, z)
            z += here * total / sum(y**power * rate for y, rate in found)
            z = z if low <= z <= high else (low + high) / 2
        s = mp.exp(z)
        return [mp.sign(a) * s * entry(abs(a), s)[0] for a in v], mp.mpf(0)

    return solve


VECTORS: Mapping[str, tuple[Atom, Exact, int]] = {
    "kl_div": (atom("kl_div")(), kl_div, 2),
    "rel_entr": (atom("rel_entr")(), rel_entr, 2),
    "log_sum_exp": (atom("log_sum_exp")(), log_sum_exp, 3),
    "quad_over_lin": (atom("quad_over_lin")(), quad_over_lin, 3),
    **{f"pnorm(x, {p:g})": (atom("pnorm").from_static({"p": p}), _pnorm(p), 3) for p in (1.1, 3.0, 10.0)},
    **{f"neg_pnorm {p:g}": (atom("neg_pnorm").from_static({"p": p}), _neg_pnorm(p), 3) for p in (-1.0, 0.5)},
    "inv_prod": (atom("inv_prod").from_static({"w": (1.0,) * 3}), inv_prod, 3),
    "neg_geo_mean": (atom("neg_geo_mean").from_static({"w": (1 / 3,) * 3}), neg_geo_mean, 3),
}


def points(n: int) -> list[tuple[float, ...]]:
    """Vectors of every size, of equal and of very different entries."""
    generator = torch.Generator().manual_seed(n)
    draws = [torch.randn(n, dtype=torch.float64, generator=generator) for _ in SIZES]
    even = [tuple((s * d).tolist()) for s, d in zip(SIZES, draws, strict=True)]
    mixed = [(1.0, *([1e-6] * (n - 1))), (1e4, *([-1.0] * (n - 1))), (*([1e-3] * (n - 1)), 1e8), (*([1.0] * n),)]
    return [*even, *mixed, *(tuple(-a for a in p) for p in mixed)]


Worst = tuple[float, object, object, object]


def scalar_error(one: Scalar, dtype: torch.dtype) -> Worst:
    """The largest error in ulps, and where: (ulps, v, t, (ours, exact))."""
    pairs = [(s * a, t) for a in SIZES for s in (1.0, -1.0) for t in STEPS]
    v, t = (torch.tensor(c, dtype=dtype) for c in zip(*pairs, strict=True))
    x = one.atom.prox(v, t, {})
    worst: Worst = (0.0, None, None, None)
    for a, b, ours in zip(v.tolist(), t.tolist(), x.tolist(), strict=True):
        exact, scale = one.exact(mp.mpf(a), mp.mpf(b))
        worst = max(worst, (_ulps(ours, exact, scale, dtype), a, b, (ours, float(exact))), key=lambda w: w[0])
    return worst


def vector_error(name: str, dtype: torch.dtype) -> Worst:
    """As `scalar_error`."""
    f, solve, n = VECTORS[name]
    worst: Worst = (0.0, None, None, None)
    for p in points(n):
        for t in STEPS[::2]:
            v = torch.tensor(p, dtype=dtype)
            step = torch.tensor([t], dtype=dtype)
            x = f.prox(v, step, {}).tolist()
            exact, size = solve([mp.mpf(a) for a in v.tolist()], mp.mpf(step.item()))
            scale = max([size, *map(abs, exact), *(mp.mpf(abs(a)) for a in v.tolist())])
            ulps = max(_ulps(a, b, scale, dtype) for a, b in zip(x, exact, strict=True))
            worst = max(worst, (ulps, p, t, (x, [float(e) for e in exact])), key=lambda w: w[0])
    return worst


def _ulps(ours: float, exact: Number, scale: Number, dtype: torch.dtype) -> float:
    info = torch.finfo(dtype)
    if ours != ours:
        return float("inf")
    return float(abs(mp.mpf(ours) - exact) / (mp.mpf(info.eps) * scale + mp.mpf(info.tiny)))
