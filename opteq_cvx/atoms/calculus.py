"""Prox calculus: what follows for every atom from its prox, so that no atom writes it again.

Parameters are tensors that broadcast like `step` (length 1 on axes that the atom reduces), so they may differ
from sample to sample; results are differentiable in them.
Source: Combettes, Pesquet, arXiv 0912.3522, table 10.1; Parikh, Boyd, *Proximal Algorithms*, 2014, section 2.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from opteq_cvx.atoms.contract import Atom, Data
from opteq_cvx.atoms.primitives import clip
from opteq_cvx.atoms.roots import newton


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


def epigraph_prox(atom: Atom, v: Tensor, s: Tensor, data: Data) -> tuple[Tensor, Tensor]:
    """The projection of (v, s) on {(x, r) : f(x) ≤ r}: x = prox_{μf}(v), r = s + μ, and (v, s) itself where f(v) ≤ s
    (v projected on f's domain, where it lies outside).

    μ > 0 is the root of f(prox_{μf}(v)) = s + μ, found by Newton's method in a bracket. First and second derivatives
    are exact: two chord steps from the root carry them.

    Args:
        atom: f, a function (not a set) that is finite at its proxes.
        v: the point (*batch, *event).
        s: the height, in the shape of f's value.
        data: f's data.
    """

    def level(mu: Tensor, v: Tensor, data: Data) -> Tensor:
        return atom.value(atom.prox(v, mu, data), data)

    fixed = {k: t.detach() for k, t in data.items()}
    point, height = v.detach(), s.detach()
    one = torch.ones_like(height)
    nearest = atom.prox(v, 0.0 * one, data)  # v, or its projection on f's domain
    outside = ~(atom.value(nearest.detach(), fixed) <= height)

    def rising(mu: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            at = mu.detach().requires_grad_()
            f = level(at, point, fixed)
            (slope,) = torch.autograd.grad(f.sum(), at)  # each μ moves its own value only
        slope = torch.where(slope.isnan() & ~f.isnan(), 0.0, slope)  # where x underflows f no longer moves
        return mu + height - f.detach(), 1.0 - slope

    high = torch.maximum(one, level(one, point, fixed) - height)
    root = newton(rising, torch.zeros_like(high), torch.where(outside, high, 1.0))
    root = torch.where(outside, root, 1.0)
    rate = rising(root)[1].detach()
    mu = root.detach()
    for _ in range(2):
        mu = torch.where(outside, mu - (mu + s - level(mu, v, data)) / rate, 1.0)
    x = torch.where(outside, atom.prox(v, mu, data), nearest)
    return x, torch.where(outside, s + mu, s)
