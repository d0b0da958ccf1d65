"""Building blocks of proxes; at kinks their derivative is the smallest one-sided one."""

import torch
from torch import Tensor

from opteq_cvx.maps.peek import hidden, transformed

ROUNDING = 256.0  # multiples of the machine epsilon by which a point may miss a set and still count as inside


def soft_threshold(v: Tensor, t: Tensor) -> Tensor:
    """sign(v) max(|v| − t, 0); derivative 0 at |v| = t (v minus a clamp, whose derivative is 1 there)."""
    return v - torch.clamp(v, -t, t)


def clip(v: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """min(max(v, lower), upper); derivative 0 at both bounds, where it goes to the bound. NaN stays NaN."""
    if underived(v, lower, upper):
        if _readable(v, lower) and _readable(v, upper):
            return torch.clamp(v, float(lower), float(upper))  # one pass
        if lower.numel() == upper.numel() == 1:  # torch vectorizes these two, and not its clamp by such tensors
            return torch.minimum(torch.maximum(v, lower), upper)
        return torch.clamp(v, lower, upper)
    return torch.where(v <= lower, lower, torch.where(v >= upper, upper, v))


def unweighted(c: Tensor, w: Tensor) -> Tensor:
    """c/w, the bound that w·f ≤ c is on f: none, +∞ with derivative 0, where w = 0."""
    some = w > 0
    return torch.where(some, c / torch.where(some, w, 1.0), torch.inf)


def _readable(v: Tensor, bound: Tensor) -> bool:
    """Whether a bound is one number that can be read without a wait, and does not change v's shape."""
    return bound.numel() == 1 and bound.ndim <= v.ndim and bound.device.type == "cpu" and not hidden(bound)


def underived(*tensors: Tensor) -> bool:
    """Whether no derivative of what is computed from these can be asked for."""
    if transformed():
        return False
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))


def euclidean(x: Tensor, axes: tuple[int, ...] = (-1,)) -> Tensor:
    """‖x‖₂ along `axes`, kept with length 1; its derivative at 0 is 0."""
    if -1 not in axes and underived(x):  # torch's norm is slow along axes that are not the last one
        return x.square().sum(dim=axes, keepdim=True).sqrt_()
    norm: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=True)
    return norm


def indicator(violation: Tensor, scale: Tensor) -> Tensor:
    """0 where `violation` is a rounding error of numbers of size `scale`, +inf elsewhere (NaN included)."""
    inside = violation <= ROUNDING * torch.finfo(violation.dtype).eps * (1.0 + scale)
    return torch.where(inside, 0.0, torch.inf).to(violation.dtype)
