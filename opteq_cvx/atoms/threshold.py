"""Water levels: the one number τ that projections on simplex-like sets need, by a sort of the last axis.

The level is found without gradient, then recomputed from its active set, which gives the exact derivative.
Source: Held, Wolfe, Crowder 1974; Condat, *Fast projection onto the simplex and the l1 ball*, 2016.
"""

import torch
from torch import Tensor


def level(v: Tensor, total: Tensor, *, ties: bool) -> Tensor:
    """τ (*batch, 1) with Σ max(v − τ, 0) = total ≥ 0, the largest one: τ = max_k (v₍₁₎ + … + v₍ₖ₎ − total)/k.

    Args:
        v: (*batch, n).
        total: (*batch, 1).
        ties: whether entries equal to τ count as active, which decides the derivative at kinks.
    """
    top = v.detach().sort(dim=-1, descending=True).values
    count = torch.arange(1, v.shape[-1] + 1, dtype=v.dtype, device=v.device)
    tau = ((top.cumsum(-1) - total.detach()) / count).amax(-1, keepdim=True)
    active = v >= tau if ties else v > tau
    number = active.sum(-1, keepdim=True)
    exact = (torch.where(active, v, 0.0).sum(-1, keepdim=True) - total) / number.clamp(min=1)
    return torch.where(number > 0, exact, tau)


def capped_level(v: Tensor, cap: Tensor, total: Tensor) -> Tensor:
    """τ (*batch, 1) with Σ min(max(v − τ, 0), cap) = total, without gradient, for 0 ≤ total ≤ n·cap.

    The sum falls linearly between the 2n breakpoints v and v − cap: one sort of them, running sums of slopes.
    """
    v, cap, total = v.detach(), cap.detach(), total.detach()
    points, order = torch.cat([v, v - cap], dim=-1).sort(dim=-1, descending=True)
    slope = torch.where(order < v.shape[-1], 1.0, -1.0).to(v.dtype).cumsum(-1)[..., :-1]
    gain = slope * (points[..., :-1] - points[..., 1:])
    reached = torch.cat(
        [torch.zeros_like(points[..., :1]), gain.cumsum(-1)], dim=-1
    )  # the sum at each breakpoint
    at = (reached < total).sum(-1, keepdim=True).clamp(1, points.shape[-1] - 1)  # the first one past `total`
    drop, rate = reached.gather(-1, at) - total, slope.gather(-1, at - 1)
    inside = torch.where(rate > 0, drop / rate.clamp(min=1.0), 0.0)
    return points.gather(-1, at) + inside
