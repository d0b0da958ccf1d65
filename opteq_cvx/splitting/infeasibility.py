"""Certificates of infeasibility and unboundedness from the drift of the Douglas–Rachford iterates.

When a program has no solution the steps T(z) − z tend to a nonzero vector; its parts are the certificates
(Banjac, Goulart, Stellato, Boyd, *Infeasibility detection in ADMM for convex optimization*, JOTA 183, 2019):
    primal: Kᵀȳ = 0 and σ_dom g(ȳ) < ⟨b, ȳ⟩        dual: Px̄ = 0 and ⟨q, x̄⟩ + rec g(Kx̄) < 0.
Support and recession functions come from the proxes alone, by looking far along the ray: ⟨ȳ, Π(w + tȳ)⟩ increases to
σ(ȳ), and (g(w + tx̄) − g(w)) / t to rec g(x̄); so every atom has them. What falls to a bound, as eˣ does, has stopped
falling far along the ray; −ln x, whose recession function is 0 as well, has not. Where a domain goes on for ever along
a part of ȳ, σ(ȳ) is infinite, which t is too short to show for a small part: that part itself, Π_rec(ȳ), has to vanish.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.atoms import Trait
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.matrices import Dense, Moved
from opteq_cvx.splitting.sizes import top

FAR = 1e4  # how far along a ray, in units of the point's own size
REACH = 10.0  # the same for values, which grow
OUTSIDE = 1e-3  # a ray leaves a domain where so large a part of it points outside
FARTHER = 10.0  # once more as far, to see whether values still fall there
STILL = 2e-3  # they do where their slope is this part of that on the way; −ln x has 1e-2 and more
CERTAIN = 1e-6  # tolerance of a certificate, where the precision allows it
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
    dx: Tensor,
    dy: Tensor,
    tolerance: float,
) -> Drift:
    """Test the drift (dx, dy) of one step, (B, n) and (B, m), at the present point w (B, m) of dom g."""
    p, q, k, b, *rest = theta
    return judge(blocks, rest, w, dx, dy, Dense(p, k).moved(q, b, dx, dy), tolerance)


def judge(
    blocks: Sequence[Block],
    rest: Sequence[Tensor],
    w: Tensor,
    dx: Tensor,
    dy: Tensor,
    moved: Moved,
    tolerance: float,
) -> Drift:
    """As `certify`, from products that were made elsewhere; `rest` is the data of the blocks."""
    small, q, b = torch.finfo(w.dtype).tiny, moved.q, moved.b
    in_y, in_x = (1.0 / _norm(d).clamp_min(small)[:, None] for d in (dy, dx))
    y, x = dy * in_y, dx * in_x
    support, slope, later, leaves, endless = _along(blocks, rest, w, y, moved.kx * in_x, tolerance * moved.row_size)
    offset = (b * y).sum(1)
    margin = tolerance * (1.0 + _norm(b.expand_as(y)))
    orthogonal = (top(moved.ky * in_y) <= tolerance * moved.k_size.clamp_min(1.0)) & (endless <= tolerance)
    primal = orthogonal & (offset - support > margin)
    linear = (q * x).sum(1)
    descent = linear + slope
    curved = top(moved.px * in_x) > tolerance * moved.p_size.clamp_min(1.0)
    dual = ~curved & ~leaves & (descent < -tolerance * (1.0 + _norm(q.expand_as(x))))
    dual = dual & (linear + later <= STILL * descent)
    moving = (_norm(dy) > 0, _norm(dx) > 0)
    return Drift(primal & moving[0], dual & moving[1], x, y)


def _along(
    blocks: Sequence[Block], rest: Sequence[Tensor], w: Tensor, y: Tensor, d: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """σ_dom g(y), rec g(d), the slope of g far along d, whether d leaves dom g, and the size of the part of y along
    which dom g goes on for ever, each (B,); d is known up to `noise` (1|B, m)."""
    support, slope, later, endless = (w.new_zeros(w.shape[0]) for _ in range(4))
    leaves = torch.zeros(w.shape[0], dtype=torch.bool, device=w.device)
    values = list(rest)
    for block in blocks:
        own, values = values[: len(block.exprs)], values[len(block.exprs) :]
        rows = torch.as_tensor(block.index.reshape(-1).copy(), device=w.device)
        here, up, move = (t.index_select(1, rows) for t in (w, y, d))
        t = FAR * (1.0 + _norm(here))[:, None]
        onto = _projection(block, own, w)
        far = onto(here + t * up)
        support = support + (up * far).sum(1)
        endless = torch.hypot(endless, _endless(block, own, onto, here, up, far, t))
        target = here + t * move
        reached = onto(target)
        blur = noise.index_select(1, rows).amax(dim=1) if block.index.size else noise.sum(1) * 0.0
        outside = _norm(target - reached) > t[:, 0] * torch.maximum(OUTSIDE * _norm(move), blur)
        leaves = leaves | (outside & (_norm(move) > blur))  # onto moves points by TINY, where the ray does not
        if Trait.SET not in block.f.traits:
            near, there = _secants(block, own, onto, here, move, noise.index_select(1, rows))
            slope, later = slope + near, later + there
    return support, slope, later, leaves, endless


def _secants(
    block: Block, own: Sequence[Tensor], onto: Callable[[Tensor], Tensor], here: Tensor, move: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """The slopes of a block's function along `move` up to where that is far for it, and from there on, each (B,).

    Recession functions are homogeneous: a small part of a ray has to be followed for so much longer, by each group of
    entries that the function sums over. What is no larger than `noise` may be no part of the ray: it proves no fall.
    """
    shape, event = here.shape, block.index.shape
    here, move, noise = (v.reshape(v.shape[0], *event) for v in (here, move, noise))

    def entries(v: Tensor) -> Tensor:
        return block.entries(onto(v.reshape(shape)).reshape(v.shape), own)

    start = entries(here)
    axes = [i for i, (n, kept) in enumerate(zip(event, start.shape[1:], strict=True), 1) if kept < n]
    size, part, blur = (_grouped(v, axes) for v in (here, move, noise))
    small = part <= blur
    t = FAR * (1.0 + size) / torch.where(small, 1.0, part)
    there, beyond = entries(here + t * move), entries(here + FARTHER * t * move)
    slopes = (there - start) / t, (beyond - there) / ((FARTHER - 1.0) * t)
    near, later = (torch.where(small & (s < 0), 0.0, s).reshape(shape[0], -1).sum(1) for s in slopes)
    return near, later


def _grouped(x: Tensor, axes: Sequence[int]) -> Tensor:
    """The norm over these axes, kept with length 1; entries where there is none."""
    return torch.linalg.vector_norm(x, dim=tuple(axes), keepdim=True) if axes else x.abs()


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
