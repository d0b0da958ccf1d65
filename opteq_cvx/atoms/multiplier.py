"""The multiplier of a level set or an epigraph: the root of a function that rises, found by bracketing alone.

It is μ ≥ 0 with aμ + c = F(prox_{μF}(v)), a = 0 for the level set {F ≤ c}, a = 1 for the epigraph over the height c.
The right side falls in μ. The solver needs values only; derivatives are those of the equation, with the subgradient
(v − x)/μ of F at x, so that F itself is differentiated in its data only and never at the end of its domain.
Source: Parikh, Boyd, *Proximal Algorithms*, 2014, section 6.6.2 (epigraphs); Chandrupatla, *A new hybrid
quadratic/bisection algorithm*, 1997 (the root).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data
from opteq_cvx.atoms.primitives import underived
from opteq_cvx.atoms.roots import Implicit, may_stop

Pull = Callable[..., tuple[Tensor, ...]]
"""A pullback: the derivative of an output to those of the inputs."""

FACTOR = 16.0
"""The bracket's ends are powers of this, one apart."""

RANGE = 24
"""The last powers: 16^±24 are numbers of float32 too."""

ROUNDS = 80
"""Most steps inside the bracket: bisection alone needs 56."""


@dataclass(frozen=True, slots=True)
class Multiplier(Implicit):
    """μ(v, c, *data) > 0 where F exceeds c at v, almost 0 where it equals c, and 1 where it is below.

    Attributes:
        atom: F.
        names: of the data, in order.
        rise: a, 0 for a level set and 1 for an epigraph.
        kept: what all pullbacks from one root share, as a Jacobian asks for many.
    """

    atom: Atom
    names: tuple[str, ...]
    rise: float
    kept: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, c, *rest = (i.detach() for i in inputs)
        data = self._data(rest)

        one = torch.ones_like(c)
        least = c - self.atom.value(self.atom.prox(v, 0.0 * one, data), data)
        direct = self.atom.crossing(v, c, self.rise, data)
        if direct is not None:
            return torch.where(least < 0, direct, torch.where(least == 0, FACTOR**-RANGE, one))

        def gap(mu: Tensor) -> Tensor:
            rising = self.rise * mu + c - self.atom.value(self.atom.prox(v, mu, data), data)
            return torch.where(least >= 0, 0.0, rising)

        root = crossing(gap, *around(gap, one))
        return torch.where(least == 0, FACTOR**-RANGE, root)

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        v, c, *rest = inputs
        point, slope, rate, _ = self._parts(x, inputs)
        by_point = _pushed(lambda v, *d: self.atom.prox(v, x, self._data(d)), (v, *rest), (tangents[0], *tangents[2:]))
        change = (slope * by_point).sum_to_size(c.shape)
        if rest:
            change = change + _pushed(lambda *d: self.atom.value(point, self._data(d)), tuple(rest), tangents[2:])
        return rate * (change - tangents[1])

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        _, _, *rest = inputs
        if underived(*inputs, grad):
            if not self.kept:
                self.kept["parts"] = self._parts(x, inputs)
            point, slope, rate, pull_prox = self.kept["parts"]
        else:
            point, slope, rate, pull_prox = self._parts(x, inputs)
        scale = rate * grad
        by_v, _, *by_data = pull_prox(scale * slope)
        if rest:
            pulled: Any = torch.func.vjp(lambda *d: self.atom.value(point, self._data(d)), *rest)
            by_data = [a + b for a, b in zip(by_data, pulled[1](scale), strict=True)]
        return by_v, -scale, *by_data

    def _parts(self, mu: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Pull]:
        """x, F's subgradient there, 1/(a − dF/dμ), and the pullback of the prox by v, μ and the data."""
        v, _, *rest = inputs
        pulled: Any = torch.func.vjp(lambda v, mu, *d: self.atom.prox(v, mu, self._data(d)), v, mu, *rest)
        point, pull = pulled
        slope = (v - point) / mu
        falls = self.rise - pull(slope)[1]  # each μ moves its own point only
        some = falls > 0
        return point, slope, torch.where(some, 1.0 / torch.where(some, falls, 1.0), 0.0), pull

    def _data(self, values: list[Tensor] | tuple[Tensor, ...]) -> Data:
        return dict(zip(self.names, values, strict=True))


def _pushed(f: Callable[..., Tensor], at: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
    """The derivative of f along tangents, by two pullbacks: what a prox is made of need not know forward mode."""
    pulled: Any = torch.func.vjp(f, *at)
    out, pull = pulled
    again: Any = torch.func.vjp(pull, torch.zeros_like(out))
    (pushed,) = again[1](tangents)
    return torch.as_tensor(pushed)


# --- the root, without derivative ------------------------------------------------------------------------


def around(gap: Callable[[Tensor], Tensor], start: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ends of a bracket, a factor of 16 apart, and the function there; equal ends where it has no root."""
    at, here = start, gap(start)
    rising = here < 0
    low, at_low, high, at_high = at, here, at, here
    open_ = here != 0
    for _ in range(RANGE):
        to = torch.where(open_, torch.where(rising, at * FACTOR, at / FACTOR), at)
        there = gap(to)
        up, down = open_ & rising, open_ & ~rising
        low, at_low = torch.where(up, at, low), torch.where(up, here, at_low)
        high, at_high = torch.where(up, to, high), torch.where(up, there, at_high)
        high, at_high = torch.where(down, at, high), torch.where(down, here, at_high)
        low, at_low = torch.where(down, to, low), torch.where(down, there, at_low)
        at, here = to, there
        open_ = open_ & torch.where(rising, there < 0, there > 0)
        if may_stop(at, open_):
            break
    low, at_low = torch.where(open_ & rising, high, low), torch.where(open_ & rising, at_high, at_low)
    high, at_high = torch.where(open_ & ~rising, low, high), torch.where(open_ & ~rising, at_low, at_high)
    return low, at_low, high, at_high


def crossing(gap: Callable[[Tensor], Tensor], low: Tensor, at_low: Tensor, high: Tensor, at_high: Tensor) -> Tensor:
    """The root of `gap` in a bracket, to rounding, entry by entry: inverse quadratic steps where they are safe."""
    a, fa, b, fb = low, at_low, high, at_high
    t = torch.full_like(a, 0.5)
    eps = torch.finfo(a.dtype).eps
    for _ in range(ROUNDS):
        width = (b - a).abs()
        best = torch.where(fa.abs() < fb.abs(), a, b)
        least = eps * best.abs() / torch.where(width > 0, width, 1.0)
        moves = (width > 0) & (least < 0.5) & (fa != 0) & (fb != 0)
        if may_stop(a, moves):
            break
        t = torch.minimum(torch.maximum(t, least), 1.0 - least)
        x = torch.where(moves, a + t * (b - a), a)
        f = torch.where(moves, gap(x), fa)
        same = (f < 0) == (fa < 0)
        c, fc = torch.where(same, a, b), torch.where(same, fa, fb)
        across, f_across = torch.where(same, b, a), torch.where(same, fb, fa)
        a, fa, b, fb = x, f, torch.where(moves, across, b), torch.where(moves, f_across, fb)
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        quadratic = (phi**2 < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
        step = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        t = torch.where(quadratic & step.isfinite(), step, 0.5)
    return torch.where(fa.abs() < fb.abs(), a, b)
