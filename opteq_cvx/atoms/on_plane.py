"""A separable piecewise linear function on a box cut by a plane: w f(x + o) + ι{l ≤ x ≤ u, ⟨a, x⟩ = b (or ≤ b)}.

Trading costs ‖x − x₀‖₁ on the simplex of holdings, prices of use under a budget. With p the prox of f and the box,
entry by entry, prox(v) = p(v − τa), τ the root of ⟨a, p(v − τa)⟩ = b, which falls in τ; at least 0 for ≤. A piece of
the calculus, made from two registered atoms, so that it has no spelling of its own.

Source: M. Patriksson, *A survey on the continuous nonlinear resource allocation problem*, European Journal of
Operational Research 185 (2008), section 2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import join, split
from opteq_cvx.atoms.box_plane import BoxPlane
from opteq_cvx.atoms.contract import Atom, Data
from opteq_cvx.atoms.multiplier import crossing
from opteq_cvx.atoms.primitives import clip, underived
from opteq_cvx.atoms.roots import may_stop
from opteq_cvx.atoms.threshold import plane_level

PREFIX = "f."
"""Before the names of f's own data."""

PIECEWISE = ("abs", "pos", "deadzone", "hinges")
"""Functions whose prox is piecewise linear, so that the plane's root has a derivative of every order on each piece."""

SLOPES = {"abs": (-1.0, 1.0), "pos": (0.0, 1.0)}
"""Slopes below and above the kink of functions that have one."""

FARTHER, RANGE = 4.0, 60
"""The bracket grows by this factor, at most so often."""


@dataclass(frozen=True, slots=True)
class OnPlane(Atom):
    """Data: lower, upper, normal (of the argument's shape), total (reduced), weight, offset where f has them, and f's.

    Attributes:
        f: a separable function of PIECEWISE.
        axes: along which the plane sums.
        below: whether the set is a half-space, ⟨a, x⟩ ≤ b.
    """

    f: Atom
    axes: tuple[int, ...] = (-1,)
    below: bool = False

    name = "on_plane"
    formula = "w f(x + o) + ι{l ≤ x ≤ u, ⟨a, x⟩ = b}"
    cost = "O(n log n); O(n) a step of the root in large batches"
    source = "Patriksson 2008, section 2"
    traits = frozenset()

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return self.own(x, data).sum(self.axes, keepdim=True) + self._set().value(x, data)

    def own(self, x: Tensor, data: Data) -> Tensor:
        """w f(x + o), entry by entry."""
        each = self.f.value(x + data["offset"] if "offset" in data else x, self._data(data))
        return each * data["weight"] if "weight" in data else each

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        tau, a = self.level(v, step, data), data["normal"]
        if underived(v, step, *data.values()):
            return self._entry(v - tau * a, step, data)
        point = (v - tau * a).detach()
        rate = torch.func.vjp(lambda u: self._entry(u, step.detach(), _still(data)), point)[1](torch.ones_like(point))
        slope = (a * a * rate[0]).sum(self.axes, keepdim=True).detach()
        gap = self._gap(v - tau * a, step, data)  # 0 here, with the derivative that moves τ
        moves = slope > 0
        if self.below:
            moves = moves & ((tau > 0) | (gap.detach() >= 0))
        tau = tau + torch.where(moves, gap / torch.where(moves, slope, 1.0), 0.0)
        return self._entry(v - tau * a, step, data)

    def level(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        """τ, the plane's multiplier times the step, in the reduced shape; without derivative."""
        v, step, data = v.detach(), step.detach(), _still(data)
        if self.f.name in SLOPES:
            return self._by_pieces(v, step, data, *SLOPES[self.f.name])
        a = data["normal"] + torch.zeros_like(v)

        def fallen(tau: Tensor) -> Tensor:
            return -self._gap(v - tau * a, step, data)

        start = fallen(torch.zeros_like(v.sum(self.axes, keepdim=True)))
        active = (start < 0) if self.below else (start != 0)
        size = (a * a).sum(self.axes, keepdim=True)
        least = torch.where(active, -start / torch.where(size > 0, size, 1.0), 0.0)  # the sum falls no faster
        low, at_low, high = torch.zeros_like(least), start, least
        at_high = fallen(high)
        for _ in range(RANGE):
            before = active & ((at_high < 0) == (start < 0)) & (at_high != 0)
            if may_stop(high, before):
                break
            low, at_low = torch.where(before, high, low), torch.where(before, at_high, at_low)
            high = torch.where(before, FARTHER * high, high)
            at_high = torch.where(before, fallen(high), at_high)
        return torch.where(active, crossing(fallen, low, at_low, high, at_high), 0.0)

    def _by_pieces(self, v: Tensor, step: Tensor, data: Data, below: float, above: float) -> Tensor:
        """τ for f of slopes `below` and `above` its one kink k, by boxes of twice as many entries.

        On the box [l, h], p(u) = clip(u − t·below, l, k) + clip(u − t·above, k, h) − k.
        """
        t = step * data["weight"] if "weight" in data else step
        low, high, a = (data[key] + torch.zeros_like(v) for key in ("lower", "upper", "normal"))
        kink = clip(-data["offset"] if "offset" in data else torch.zeros_like(v), low, high)
        halves = ((v - below * t, v - above * t), (low, kink), (kink, high), (a, a))
        joined = (torch.cat([join(h + torch.zeros_like(v), self.axes) for h in half], dim=-1) for half in halves)
        total = data["total"] + (a * kink).sum(self.axes, keepdim=True)
        v2, low2, high2, a2 = joined
        found = split(plane_level(v2, low2, high2, a2, join(total, self.axes)), self.axes, total.shape)
        return found.clamp(min=0.0) if self.below else found

    def _entry(self, u: Tensor, step: Tensor, data: Data) -> Tensor:
        """The prox of f and the box."""
        t = step * data["weight"] if "weight" in data else step
        o = data.get("offset")
        x = self.f.prox(u if o is None else u + o, t, self._data(data))
        return clip(x if o is None else x - o, data["lower"], data["upper"])

    def _gap(self, u: Tensor, step: Tensor, data: Data) -> Tensor:
        """⟨a, p(u)⟩ − b."""
        return (data["normal"] * self._entry(u, step, data)).sum(self.axes, keepdim=True) - data["total"]

    def _data(self, data: Data) -> dict[str, Tensor]:
        return {key.removeprefix(PREFIX): t for key, t in data.items() if key.startswith(PREFIX)}

    def _set(self) -> BoxPlane:
        return BoxPlane(self.axes, self.below)

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return self._set().violation(x, data)

    @override
    def empty(self, data: Data) -> Tensor:
        return self._set().empty(data)


def _still(data: Data) -> dict[str, Tensor]:
    return {key: t.detach() for key, t in data.items()}
