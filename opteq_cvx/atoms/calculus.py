"""Prox calculus: what follows for every atom from its prox, so that no atom writes it again.

Parameters are tensors that broadcast like `step` (length 1 on axes that the atom reduces), so they may differ
from sample to sample; results are differentiable in them.
Source: Combettes, Pesquet, arXiv 0912.3522, table 10.1; Parikh, Boyd, *Proximal Algorithms*, 2014, section 2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data
from opteq_cvx.atoms.multiplier import Multiplier
from opteq_cvx.atoms.primitives import clip


def normal_prox(
    atom: Atom,
    v: Tensor,
    step: Tensor,
    data: Data,
    *,
    a: Tensor | None = None,
    b: Tensor | None = None,
    c: Tensor | None = None,
    d: Tensor | None = None,
    g: Tensor | None = None,
) -> Tensor:
    """The prox of t·h, h(x) = a·f(bx − c) + ⟨d, x⟩ + (g/2)‖x‖², by one prox of f.

    prox_{th}(v) = (c + prox_{(tab²/κ) f}(b(v − td)/κ − c)) / b, κ = 1 + tg.

    Args:
        atom: f; with a `b` or `g` that varies between entries, a separable one.
        v: the point (*batch, *event).
        step: t ≥ 0.
        data: f's data.
        a: positive weight, 1 by default.
        b: nonzero slope of either sign, 1 by default.
        c: shift (*batch, *event), 0 by default.
        d: tilt (*batch, *event), 0 by default.
        g: nonnegative curvature, 0 by default.
    """
    point = v if d is None else v - step * d
    t = step if a is None else step * a
    if g is not None:
        kappa = 1.0 + step * g
        point, t = point / kappa, t / kappa
    if b is not None:
        point, t = b * point, t * b * b
    x = atom.prox(point if c is None else point - c, t, data)
    x = x if c is None else x + c
    return x if b is None else x / b


def normal_value(
    atom: Atom,
    x: Tensor,
    data: Data,
    *,
    a: Tensor | None = None,
    b: Tensor | None = None,
    c: Tensor | None = None,
    d: Tensor | None = None,
    g: Tensor | None = None,
) -> Tensor:
    """h(x) = a·f(bx − c) + ⟨d, x⟩ + (g/2)‖x‖², reduced axes kept with length 1."""
    inner = x if b is None else b * x
    f = atom.value(inner if c is None else inner - c, data)
    f = f if a is None else a * f
    if d is not None:
        f = f + (d * x).sum_to_size(f.shape)
    return f if g is None else f + (0.5 * g * x * x).sum_to_size(f.shape)


def conjugate_prox(atom: Atom, v: Tensor, step: Tensor, data: Data) -> Tensor:
    """prox of s·f* by Moreau: v − s·prox_{f/s}(v/s); s = 0 returns v."""
    some = step > 0
    s = torch.where(some, step, 1.0)
    return torch.where(some, v - s * atom.prox(v / s, 1.0 / s, data), v)


def envelope(atom: Atom, v: Tensor, step: Tensor, data: Data) -> Tensor:
    """The Moreau envelope min_x f(x) + ‖x − v‖²/(2t), t > 0; its gradient is (v − prox_{tf}(v))/t."""
    x = atom.prox(v, step, data)
    f = atom.value(x, data)
    return f + ((x - v) ** 2).sum_to_size(f.shape) / (2.0 * step)


def interval_after(atom: Atom, v: Tensor, step: Tensor, data: Data, lower: Tensor, upper: Tensor) -> Tensor:
    """The prox of f + ι[lower, upper] for f separable: the interval last (the other order is wrong)."""
    return clip(atom.prox(v, step, data), lower, upper)


def tight_frame_prox(
    atom: Atom,
    v: Tensor,
    step: Tensor,
    data: Data,
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    nu: Tensor,
    offset: Tensor | None = None,
) -> Tensor:
    """The prox of t·f(Ax − b) where AAᵀ = νI: v + Aᵀ(prox_{νtf}(Av − b) − (Av − b))/ν.

    Args:
        atom: f.
        v: the point.
        step: t, broadcast like f's value on Ax.
        data: f's data.
        forward: x ↦ Ax.
        adjoint: y ↦ Aᵀy.
        nu: ν > 0, a scalar for each sample.
        offset: b, 0 by default.
    """
    y = forward(v)
    y = y if offset is None else y - offset
    return v + adjoint((atom.prox(y, nu * step, data) - y) / nu)


@dataclass(frozen=True, slots=True)
class Summed(Atom):
    """F(x) = Σ w f(x) along `axes` of the argument, of f itself where f reduces them; data `weight` (1 if absent), f's.

    An atom without a name or spellings: a piece of the calculus, made from a registered one.
    """

    f: Atom
    axes: tuple[int, ...] = ()

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        each = self.f.value(x, data)
        each = each * data[WEIGHT] if WEIGHT in data else each
        return each.sum(self.axes, keepdim=True) if self.axes else each

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return self.f.prox(v, step * data[WEIGHT] if WEIGHT in data else step, data)

    @override
    def crossing(self, v: Tensor, c: Tensor, rise: float, data: Data) -> Tensor | None:
        one = not self.axes or self.axes == getattr(self.f, "axes", None)  # a single value of f
        return self.f.crossing(v, c, rise, data) if one and WEIGHT not in data else None


WEIGHT = "weight"
"""The name of `Summed`'s own datum."""


def level_prox(atom: Atom, v: Tensor, c: Tensor, data: Data) -> Tensor:
    """The projection of v on {x : F(x) ≤ c}: x = prox_{μF}(v) with F(x) = c, and v itself where F(v) < c (v projected
    on F's domain, where it lies outside).

    On the boundary the derivative is that of the outer formula. Where no x has F(x) ≤ c, x is close to a minimizer.

    Args:
        atom: F, a function (not a set) that is finite at its proxes.
        v: the point (*batch, *event).
        c: the level, broadcasting like F's value.
        data: F's data.
    """
    outside, nearest, mu = _multiplier(atom, v, c, data, 0.0)
    return torch.where(outside, atom.prox(v, mu, data), nearest)


def epigraph_prox(atom: Atom, v: Tensor, s: Tensor, data: Data) -> tuple[Tensor, Tensor]:
    """The projection of (v, s) on {(x, r) : F(x) ≤ r}: x = prox_{μF}(v), r = s + μ, and (v, s) itself where F(v) < s
    (v projected on F's domain, where it lies outside).

    μ > 0 is the root of F(prox_{μF}(v)) = s + μ. Derivatives are those of that equation, of any order.

    Args:
        atom: F, a function (not a set) that is finite at its proxes.
        v: the point (*batch, *event).
        s: the height, in the shape of F's value.
        data: F's data.
    """
    outside, nearest, mu = _multiplier(atom, v, s, data, 1.0)
    return torch.where(outside, atom.prox(v, mu, data), nearest), torch.where(outside, s + mu, s)


def level_multiplier(atom: Atom, v: Tensor, c: Tensor, data: Data) -> Tensor:
    """μ ≥ 0 of `level_prox`: 0 where v lies inside."""
    outside, _, mu = _multiplier(atom, v, c, data, 0.0)
    return torch.where(outside, mu, 0.0)


def _multiplier(atom: Atom, v: Tensor, c: Tensor, data: Data, rise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Where F exceeds c, the nearest point of F's domain, and the multiplier (1 where F is below c)."""
    nearest = atom.prox(v, torch.zeros_like(c), data)
    below = atom.value(nearest.detach(), {k: t.detach() for k, t in data.items()})
    outside = ~(below < c.detach())
    mu = Multiplier(atom, tuple(data), rise)(v, c.expand(below.shape), *data.values())
    return outside, nearest, torch.where(outside, mu, 1.0)
