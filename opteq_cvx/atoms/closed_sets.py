"""Level sets and epigraphs with a projection of their own: weighted l1 and group norms, p-norms, squares, powers.

The multiplier of a weighted sum of thresholds comes from one sort: with sizes u ≥ 0 and weights w, Σ w max(u − μw, 0)
= c + aμ has the root μ = max over prefixes S of the order u/w of (Σ_S wu − c)/(Σ_S w² + a), a as in `multiplier`.
It is found without gradient and recomputed from its active set, which gives the exact derivative.
Source: Held, Wolfe, Crowder 1974; Parikh, Boyd 2014, sections 6.5 and 6.6.2.
"""

import torch
from torch import Tensor

from opteq_cvx.atoms.axes import join, kept, split
from opteq_cvx.atoms.calculus import WEIGHT, Summed
from opteq_cvx.atoms.contract import Data
from opteq_cvx.atoms.norm2 import Norm2
from opteq_cvx.atoms.pnorm import PNorm
from opteq_cvx.atoms.pnorm_ball import onto_ball
from opteq_cvx.atoms.power import Power
from opteq_cvx.atoms.primitives import clip, euclidean, unweighted
from opteq_cvx.atoms.quad_over_lin import HEIGHT

THRESHOLDS = frozenset({"abs", "norm2", "pos"})
SQUARES = frozenset({"square", "square_pos"})


def closed_level(f: Summed, v: Tensor, c: Tensor, data: Data) -> Tensor | None:
    """The projection of v on {F ≤ c}; None where it has no closed form. For c < 0 a minimizer of F."""
    if f.f.name in THRESHOLDS:
        mu = _threshold(f, v, c, data, 0.0)
        inside = mu < 0  # −∞ where all weights are 0
        return torch.where(inside, v, f.prox(v, torch.where(inside, 0.0, mu), data))
    if isinstance(f.f, PNorm) and f.axes == f.f.axes:
        w = data.get(WEIGHT, torch.ones_like(c))
        some = w > 0
        return torch.where(some, onto_ball(v, c / torch.where(some, w, 1.0), f.f.p, f.axes), v)
    if f.axes == ():
        c = unweighted(c, data[WEIGHT]) if WEIGHT in data else c
        if f.f.name == "exp":
            return torch.minimum(v, torch.log(c.clamp(min=torch.finfo(c.dtype).tiny)))
        if isinstance(f.f, Power):
            return _power(f.f, v, c)
    elif WEIGHT in data:
        return None
    if f.f.name not in SQUARES:
        return None
    size, radius = _norm(f, v), torch.relu(c).sqrt()
    outside = (size >= radius) & (size > 0)
    scaled = v * torch.where(outside, radius / torch.where(outside, size, 1.0), 1.0)
    return scaled if f.f.name == "square" else torch.where(v > 0, scaled, v)


def closed_epigraph(f: Summed, v: Tensor, s: Tensor, data: Data) -> tuple[Tensor, Tensor] | None:
    """The projection of (v, s) on {F(x) ≤ t}; None where it has no closed form.

    Of squares μ is the root of s + μ = ‖v‖²/(1 + 2μ)², the cubic that `quad_over_lin` solves.
    """
    if f.f.name in THRESHOLDS:
        mu = torch.relu(_threshold(f, v, s, data, 1.0))
    elif f.f.name in SQUARES and WEIGHT not in data:
        size = _norm(f, v)
        mu = 0.5 * HEIGHT(-2.0 * s, torch.full_like(s, 0.5), 4.0 * size * size)
    else:
        return None
    return f.prox(v, mu, data), s + mu


def _norm(f: Summed, v: Tensor) -> Tensor:
    """The root of an unweighted sum of squares along `axes`."""
    u = v if f.f.name == "square" else torch.relu(v)
    return euclidean(u, f.axes) if f.axes else u.abs()


def _power(f: Power, v: Tensor, c: Tensor) -> Tensor:
    """Onto x^p ≤ c entry by entry, an interval."""
    bound = c.clamp(min=torch.finfo(c.dtype).tiny) ** (1.0 / f.p)
    if f.p < 0:
        return torch.maximum(v, bound)
    return clip(v, -bound if f.even else torch.zeros_like(bound), bound)


def _threshold(f: Summed, v: Tensor, c: Tensor, data: Data, rise: float) -> Tensor:
    """μ, negative inside, in the shape of F's value."""
    match f.f.name:
        case "abs":
            u = v.abs()
        case "pos":
            u = torch.relu(v)
        case _:
            assert isinstance(f.f, Norm2)
            u = euclidean(v, f.f.axes)
    if not f.axes and not rise:
        w = data.get(WEIGHT, torch.ones_like(c))
        return (u - unweighted(c, w)) / torch.where(w > 0, w, 1.0)
    u, w = torch.broadcast_tensors(u, data.get(WEIGHT, torch.ones_like(c)))
    mu = weighted_level(join(u, f.axes), join(w, f.axes), join(c, f.axes), rise)
    return split(mu, f.axes, kept(u.shape, f.axes))


def weighted_level(u: Tensor, w: Tensor, total: Tensor, rise: float) -> Tensor:
    """μ (*batch, 1) with Σ w max(u − μw, 0) = total + rise·μ, for sizes u ≥ 0 and weights w ≥ 0 along the last axis."""
    with torch.no_grad():
        ratio = torch.where(w > 0, u / torch.where(w > 0, w, 1.0), -torch.inf)
        order = ratio.argsort(dim=-1, descending=True)
        sums = (w * u).gather(-1, order).cumsum(-1) - total
        squares = (w * w).gather(-1, order).cumsum(-1) + rise
        found = torch.where(squares > 0, sums / torch.where(squares > 0, squares, 1.0), -torch.inf)
        mu = found.amax(-1, keepdim=True)
        mu = torch.maximum(mu, -total) if rise else mu
        active = ratio > mu
    squares = torch.where(active, w * w, 0.0).sum(-1, keepdim=True) + rise
    exact = torch.where(active, w * u, 0.0).sum(-1, keepdim=True) - total
    return torch.where(squares > 0, exact / torch.where(squares > 0, squares, 1.0), mu)
