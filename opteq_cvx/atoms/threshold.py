"""Water levels: the one number τ that projections on simplex-like sets need, along the last axis.

The level is found without gradient, by a sort, or on the CPU for larger inputs by shrinking the active set, which
takes a handful of passes; then it is recomputed from its active set, which gives the exact derivative.
Source: Held, Wolfe, Crowder 1974; Condat, *Fast projection onto the simplex and the l1 ball*, 2016.
"""

import torch
from torch import Tensor

from opteq_cvx.maps.peek import hidden

LARGE = 4096  # entries from which passes over the active set are faster than a sort
PASSES = 60  # of them at most
ROUNDING = 2.0  # a level that rises by less than so many units of rounding is found


def level(v: Tensor, total: Tensor, *, ties: bool) -> Tensor:
    """τ (*batch, 1) with Σ max(v − τ, 0) = total ≥ 0, the largest one: τ = max_k (v₍₁₎ + … + v₍ₖ₎ − total)/k.

    Args:
        v: (*batch, n).
        total: (*batch, 1).
        ties: whether entries equal to τ count as active, which decides the derivative at kinks.
    """
    tau = water(v.detach(), total.detach())
    active = v >= tau if ties else v > tau
    number = active.sum(-1, keepdim=True)
    exact = (torch.where(active, v, 0.0).sum(-1, keepdim=True) - total) / number.clamp(min=1)
    return torch.where(number > 0, exact, tau)


def water(v: Tensor, total: Tensor) -> Tensor:
    """τ of `level` without gradient."""
    if v.device.type == "cpu" and v.numel() >= LARGE and not hidden(v) and not hidden(total):
        tau = _by_passes(v, total)
        if tau is not None:
            return tau
    top = v.sort(dim=-1, descending=True).values
    count = torch.arange(1, v.shape[-1] + 1, dtype=v.dtype, device=v.device)
    return ((top.cumsum(-1) - total) / count).amax(-1, keepdim=True)


def _by_passes(v: Tensor, total: Tensor) -> Tensor | None:
    """Michelot's algorithm, Newton's on Σ max(v − τ, 0) = total, from two lower bounds of τ; None after `PASSES`.

    Source: Michelot, *A finite algorithm for finding the projection of a point onto the canonical simplex*, 1986;
    Condat 2016, section 3.
    """
    top = v.amax(-1, keepdim=True)
    tau = torch.maximum(top - total, (v.sum(-1, keepdim=True) - total) / v.shape[-1])
    slack = torch.maximum(top.abs(), total).mul_(ROUNDING * torch.finfo(v.dtype).eps)
    above = torch.empty_like(v)
    for _ in range(PASSES):
        torch.sub(v, tau, out=above).relu_()
        rise = above.sum(-1, keepdim=True).sub_(total)
        rise.div_(above.gt_(0.0).sum(-1, keepdim=True).clamp_min_(1.0))
        if not bool((rise > slack).any()):
            return tau + rise.clamp_min_(0.0)
        tau = tau + rise.clamp_min_(0.0)
    return None


def capped_level(v: Tensor, cap: Tensor, total: Tensor) -> Tensor:
    """τ (*batch, 1) with Σ min(max(v − τ, 0), cap) = total, without gradient, for 0 ≤ total ≤ n·cap.

    The sum falls linearly between the 2n breakpoints v and v − cap: one sort of them, running sums of slopes.
    """
    v, cap, total = v.detach(), cap.detach(), total.detach()
    if v.device.type == "cpu" and v.numel() >= LARGE and not any(hidden(t) for t in (v, cap, total)):
        tau = _capped_by_passes(v, cap, total)
        if tau is not None:
            return tau
    points, order = torch.cat([v, v - cap], dim=-1).sort(dim=-1, descending=True)
    slope = torch.where(order < v.shape[-1], 1.0, -1.0).to(v.dtype).cumsum(-1)[..., :-1]
    gain = slope * (points[..., :-1] - points[..., 1:])
    reached = torch.cat([torch.zeros_like(points[..., :1]), gain.cumsum(-1)], dim=-1)  # the sum at each breakpoint
    at = (reached < total).sum(-1, keepdim=True).clamp(1, points.shape[-1] - 1)  # the first one past `total`
    drop, rate = reached.gather(-1, at) - total, slope.gather(-1, at - 1)
    inside = torch.where(rate > 0, drop / rate.clamp(min=1.0), 0.0)
    return points.gather(-1, at) + inside


def _capped_by_passes(v: Tensor, cap: Tensor, total: Tensor) -> Tensor | None:
    """τ of `capped_level` by Newton's method in a bracket, exact on the piece that it ends at; None where it takes
    long."""
    low, high = v.amin(-1, keepdim=True) - cap, v.amax(-1, keepdim=True)
    slack = torch.maximum(low.abs(), high.abs()).mul_(ROUNDING * torch.finfo(v.dtype).eps)
    small = total * (v.shape[-1] * torch.finfo(v.dtype).eps)
    tau = 0.5 * (low + high)
    last = high - low
    poured = torch.empty_like(v)
    for _ in range(PASSES):
        torch.minimum(torch.sub(v, tau, out=poured).relu_(), cap, out=poured)
        gap = poured.sum(-1, keepdim=True).sub_(total)
        low, high = torch.where(gap > 0, tau, low), torch.where(gap <= 0, tau, high)
        number = (poured.gt(0.0) & poured.lt(cap)).sum(-1, keepdim=True)
        to = tau + gap / number.clamp(min=1)
        move = (to - tau).abs()
        flat = (number == 0) & (gap.abs() <= small)  # no entry moves, and the sum is right: any τ here will do
        jump = (number == 0) | (to < low) | (to > high) | ((2.0 * move > last) & (move > slack))
        to = torch.where(flat, tau, torch.where(jump & (gap != 0), 0.5 * (low + high), to))
        last = (to - tau).abs()
        tau = to
        if not bool((last > slack).any()):
            return tau
    return None


def plane_level(v: Tensor, lower: Tensor, upper: Tensor, a: Tensor, total: Tensor) -> Tensor:
    """μ (*batch, 1) with ⟨a, clip(v − μa, lower, upper)⟩ = total, without gradient; bounds may be infinite.

    The sum falls with μ and is linear between the 2n breakpoints (v − bound)/a: a search among them sorted, then the
    line between two neighbors. Where the set is empty, an end of the range.
    """
    v, lower, upper, a, total = (t.detach() for t in (v, lower, upper, a, total))
    if v.device.type == "cpu" and v.numel() >= LARGE and not any(hidden(t) for t in (v, lower, upper, a, total)):
        found = _plane_by_passes(v, lower, upper, a, total)
        if found is not None:
            return found
    moving = a != 0
    slope = torch.where(moving, a, 1.0)
    ends = [torch.where(moving, (v - bound) / slope, torch.inf) for bound in (lower, upper)]
    points = torch.cat(ends, dim=-1).sort(dim=-1).values
    known = points.isfinite()
    points = torch.where(known, points, 0.0)

    def poured(mu: Tensor) -> Tensor:
        return (a * torch.minimum(torch.maximum(v - mu * a, lower), upper)).sum(-1, keepdim=True)

    first, last = known.int().argmax(-1, keepdim=True), known.sum(-1, keepdim=True)
    low, high = first, first + last  # the first finite point whose sum is at most `total` lies in [low, high]
    for _ in range(int(points.shape[-1]).bit_length()):
        middle = (low + high) // 2
        at = points.gather(-1, middle.clamp(max=points.shape[-1] - 1))
        enough = poured(at) <= total
        open_ = low < high
        high = torch.where(open_ & enough, middle, high)
        low = torch.where(open_ & ~enough, middle + 1, low)
    none = last == 0
    right = points.gather(-1, high.clamp(max=points.shape[-1] - 1))
    left = points.gather(-1, (high - 1).clamp(min=0))
    has_left, has_right = (high > first) & ~none, (high < first + last) & ~none
    # a point of the open piece between the neighbors decides which entries move on it
    width = 1.0 + torch.where(has_left, left, right).abs()
    inside = torch.where(has_left & has_right, 0.5 * (left + right), torch.where(has_left, left + width, right - width))
    inside = torch.where(none, 0.0, inside)
    at_inside = v - inside * a
    free = moving & (at_inside > lower) & (at_inside < upper)
    fixed = torch.minimum(torch.maximum(at_inside, lower), upper)
    rest = (a * torch.where(free, v, fixed)).sum(-1, keepdim=True) - total
    square = torch.where(free, a * a, 0.0).sum(-1, keepdim=True)
    mu = torch.where(square > 0, rest / torch.where(square > 0, square, 1.0), inside)
    mu = torch.where(has_right, torch.minimum(mu, right), mu)
    return torch.where(has_left, torch.maximum(mu, left), mu)


def _plane_by_passes(v: Tensor, lower: Tensor, upper: Tensor, a: Tensor, total: Tensor) -> Tensor | None:
    """μ of `plane_level` by Newton's method in a bracket, exact on the piece that it ends at; None where it takes long.

    Beyond the finite breakpoints the sum is linear, so that a step which leaves them there is the last one.
    """
    moved, onto = torch.empty_like(v), torch.empty_like(v)
    low, high = _finite_range(v, lower, upper, a, moved, onto)
    if not bool((low <= high).all()):
        return None
    slack = torch.maximum(low.abs(), high.abs()).mul_(ROUNDING * torch.finfo(v.dtype).eps)
    size = torch.maximum(total.abs(), torch.mul(a, v, out=onto).abs_().amax(-1, keepdim=True))
    small = size * (v.shape[-1] * torch.finfo(v.dtype).eps)
    below, above = low, high  # of the root, where it lies among the breakpoints
    mu = 0.5 * (low + high)
    last = high - low
    for _ in range(PASSES):
        torch.addcmul(v, a, mu, value=-1.0, out=moved)
        torch.minimum(torch.maximum(moved, lower, out=onto), upper, out=onto)
        slope = moved.eq_(onto).mul_(a).mul_(a).sum(-1, keepdim=True)
        gap = onto.mul_(a).sum(-1, keepdim=True).sub_(total)
        below, above = torch.where(gap > 0, mu, below), torch.where(gap <= 0, mu, above)
        some = slope > 0
        to = mu + gap / torch.where(some, slope, 1.0)
        move = (to - mu).abs()
        flat = ~some & (gap.abs() <= small)  # no entry moves, and the sum is right: any μ here will do
        outside = ((to < below) & (below > low)) | ((to > above) & (above < high))
        jump = ~some | outside | ((2.0 * move > last) & (move > slack) & (to > low) & (to < high))
        to = torch.where(flat, mu, torch.where(jump & (gap != 0), 0.5 * (below + above), to))
        last = (to - mu).abs()
        mu = to
        if not bool((last > slack).any()):
            return mu
    return None


def _finite_range(
    v: Tensor, lower: Tensor, upper: Tensor, a: Tensor, point: Tensor, work: Tensor
) -> tuple[Tensor, Tensor]:
    """The least and the largest finite breakpoint (v − bound)/a; +∞ and −∞ where there is none. Overwrites the last
    two."""
    inf = torch.inf
    least, most = [], []
    for bound in (lower, upper):
        torch.sub(v, bound, out=point).div_(a)
        least.append(torch.nan_to_num(point, inf, inf, inf, out=work).amin(-1, keepdim=True))
        most.append(torch.nan_to_num(point, -inf, -inf, -inf, out=work).amax(-1, keepdim=True))
    return torch.minimum(*least), torch.maximum(*most)
