"""Certificates of infeasibility and unboundedness from the drift of the Douglas–Rachford iterates.

When a program has no solution the steps T(z) − z tend to a nonzero vector; its parts are the certificates
(Banjac, Goulart, Stellato, Boyd, *Infeasibility detection in ADMM for convex optimization*, JOTA 183, 2019):
    primal: Kᵀȳ = 0 and σ_dom g(ȳ) < ⟨b, ȳ⟩        dual: Px̄ = 0 and ⟨q, x̄⟩ + rec g(Kx̄) < 0.
Support and recession functions come from the proxes alone, by looking far along the ray: ⟨ȳ, Π(w + tȳ)⟩ increases to
σ(ȳ), and slopes of g to rec g(x̄); so every atom has them. Where rec g(x̄) = 0, how the slopes shrink tells what falls
for ever from what ends at a bound (see `recession`). Where a domain goes on for ever along a part of ȳ, σ(ȳ) is
infinite, which t is too short to show for a small part: that part itself, Π_rec(ȳ), has to vanish.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.atoms import Trait
from opteq_cvx.splitting import recession
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.matrices import Dense, Moved
from opteq_cvx.splitting.sizes import top

REACH = 10.0  # how far along a ray values are asked for, which grow, in units of the point's own size
OUTSIDE = 1e-3  # a ray leaves a domain where so large a part of it points outside
EXPLAINED = 10.0  # slopes are certain beyond so many times what multipliers make of the part outside
CERTAIN = 1e-6  # tolerance of a certificate, where the precision allows it
UNITS = 16.0  # of rounding: what is no larger in Kx̄ is 0, where x and −x cancel
TINY = 1e-10  # the step with which a function's prox becomes the projection onto its domain


def certainty(tolerance: float, dtype: torch.dtype) -> float:
    """The tolerance of certificates of programs solved to `tolerance`: a loose one must not declare a hard program
    infeasible; what rounding blurs is allowed."""
    blur: float = torch.finfo(dtype).eps ** 0.5
    return max(CERTAIN, min(tolerance, blur))


@dataclass(frozen=True, slots=True)
class Drift:
    """Per sample (B,): whether the program is certified infeasible, or unbounded below, by the unit rays y and x."""

    infeasible: Tensor
    unbounded: Tensor
    x: Tensor
    y: Tensor


def certify(
    blocks: Sequence[Block],
    theta: Sequence[Tensor],
    w: Tensor,
    y: Tensor,
    dx: Tensor,
    dy: Tensor,
    tolerance: float,
) -> Drift:
    """Test the drift (dx, dy) of one step, (B, n) and (B, m), at the point w of dom g with multipliers y (B, m)."""
    p, q, k, b, *rest = theta
    return judge(blocks, rest, w, y, dx, dy, Dense(p, k).moved(q, b, dx, dy), tolerance)


def judge(
    blocks: Sequence[Block],
    rest: Sequence[Tensor],
    w: Tensor,
    y: Tensor,
    dx: Tensor,
    dy: Tensor,
    moved: Moved,
    tolerance: float,
) -> Drift:
    """As `certify`, from products that were made elsewhere; `rest` is the data of the blocks.

    A ray is known up to a part e that leaves dom g. With multipliers y of an optimum, ⟨q, x̄⟩ + rec g(Kx̄ − e) ≥ −⟨y, e⟩:
    what falls by no more than that proves nothing.
    """
    small, q, b = torch.finfo(w.dtype).tiny, moved.q, moved.b
    in_y, in_x = (1.0 / _norm(d).clamp_min(small)[:, None] for d in (dy, dx))
    up, x = dy * in_y, dx * in_x
    support, endless = _supported(blocks, rest, w, up)
    image, least = moved.kx * in_x, UNITS * torch.finfo(x.dtype).eps * moved.row_size
    image = torch.where(image.abs() <= least, 0.0, image)
    slopes, rounding, leaves, outside = _along(blocks, rest, w, image, tolerance * moved.row_size)
    offset = (b * up).sum(1)
    margin = tolerance * (1.0 + _norm(b.expand_as(up)))
    orthogonal = (top(moved.ky * in_y) <= tolerance * moved.k_size.clamp_min(1.0)) & (endless <= tolerance)
    primal = orthogonal & (offset - support > margin)
    linear, margin = (q * x).sum(1), tolerance * (1.0 + _norm(q.expand_as(x)))
    margin = torch.maximum(margin, EXPLAINED * outside * (1.0 + _norm(y)))
    rounding = rounding + torch.finfo(x.dtype).eps * (q * x).abs().sum(1)[:, None]
    curved = top(moved.px * in_x) > tolerance * moved.p_size.clamp_min(1.0)
    bend = 0.5 * (x * moved.px * in_x).sum(1).clamp_min(0.0)
    ends = torch.stack(recession.times(1.0 + _norm(w)), dim=1)
    curvature = bend[:, None] * (ends[:, 1:] + ends[:, :-1])
    dual = ~curved & ~leaves & recession.falls(slopes, linear, curvature, margin, rounding)
    moving = (_norm(dy) > 0, _norm(dx) > 0)
    return Drift(primal & moving[0], dual & moving[1], x, up)


def _supported(blocks: Sequence[Block], rest: Sequence[Tensor], w: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """σ_dom g(y), and the size of the part of y along which dom g goes on for ever, each (B,)."""
    support, endless = w.new_zeros(w.shape[0]), w.new_zeros(w.shape[0])
    for block, own, rows in _each(blocks, rest, w):
        here, up = w.index_select(1, rows), y.index_select(1, rows)
        t, onto = _far(here), _projection(block, own, w)
        far = onto(here + t * up)
        support = support + (up * far).sum(1)
        endless = torch.hypot(endless, _endless(block, own, onto, here, up, far, t))
    return support, endless


def _along(
    blocks: Sequence[Block], rest: Sequence[Tensor], w: Tensor, d: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slopes of g over decades far along d, how far rounding moves them, whether d leaves dom g (B,), and by how much.

    d is known up to `noise` (1|B, m).
    """
    slopes, rounding = w.new_zeros(w.shape[0], recession.DECADES), w.new_zeros(w.shape[0], recession.DECADES)
    leaves, out = torch.zeros(w.shape[0], dtype=torch.bool, device=w.device), w.new_zeros(w.shape[0])
    for block, own, rows in _each(blocks, rest, w):
        here, move, blurs = (t.index_select(1, rows) for t in (w, d, noise))
        t, onto = _far(here), _projection(block, own, w)
        target = here + t * move
        blur = blurs.amax(dim=1) if block.index.size else noise.sum(1) * 0.0
        part = _norm(target - onto(target)) / t[:, 0]
        out = torch.hypot(out, part)
        left = part > torch.maximum(OUTSIDE * _norm(move), blur)
        leaves = leaves | (left & (_norm(move) > blur))  # onto moves points by TINY, where the ray does not
        if Trait.SET not in block.f.traits:
            more = recession.secants(block, own, onto, here, move, blurs)
            slopes, rounding = slopes + more[0], rounding + more[1]
    return slopes, rounding, leaves, out


def _each(
    blocks: Sequence[Block], rest: Sequence[Tensor], like: Tensor
) -> Iterator[tuple[Block, list[Tensor], Tensor]]:
    """Each block with its data and its rows."""
    values = list(rest)
    for block in blocks:
        own, values = values[: len(block.exprs)], values[len(block.exprs) :]
        yield block, own, torch.as_tensor(block.index.reshape(-1).copy(), device=like.device)


def _far(here: Tensor) -> Tensor:
    return recession.FAR * (1.0 + _norm(here))[:, None]


def _endless(
    block: Block,
    own: Sequence[Tensor],
    onto: Callable[[Tensor], Tensor],
    here: Tensor,
    up: Tensor,
    far: Tensor,
    t: Tensor,
) -> Tensor:
    """How large a part of `up` is a direction in which a block's domain has no end (B,), 0 where that is not known.

    Of cones and intervals it is the projection onto the recession cone, the slope of Π(w + t·up) far along the ray; of
    functions all of it, where they are finite along the ray.
    """
    if Trait.SET in block.f.traits:
        if block.f.traits & {Trait.CONE, Trait.INTERVAL}:
            return _norm(onto(here + 10.0 * t * up) - far) / (9.0 * t[:, 0])
        return t.new_zeros(t.shape[0])
    size = _norm(up)
    ahead = here + up * (REACH * (1.0 + _norm(here)) / size.clamp_min(torch.finfo(up.dtype).tiny))[:, None]
    inside = block.value(ahead, own).isfinite()
    if block.interval is not None:
        inside = inside & (_norm(onto(ahead) - ahead) <= OUTSIDE * _norm(ahead - here))
    return torch.where(inside, size, 0.0)


def _projection(block: Block, own: Sequence[Tensor], like: Tensor) -> Callable[[Tensor], Tensor]:
    """The projection of rows (B, rows) onto the domain of a block's function."""
    project, event = block.bind(like.new_full((1,), TINY), own), block.index.shape
    return lambda v: project(v.reshape(v.shape[0], *event)).reshape(v.shape)


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=1)
    return norm
