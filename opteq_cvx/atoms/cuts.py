"""Level sets and epigraphs of the l1 norm, the largest entry and the largest magnitude, without iteration.

All are along the last axis, and plain operations on tensors: they may be lifted to spectra, with any derivative.
Source: Held, Wolfe, Crowder 1974 (the threshold of the simplex); Parikh, Boyd 2014, section 6.5.
"""

import torch
from torch import Tensor

from opteq_cvx.atoms.primitives import soft_threshold
from opteq_cvx.atoms.threshold import level

CUT = frozenset({"abs", "max", "norm_inf"})
"""The functions, by the names of their atoms (of abs the sum)."""


def cut_level(name: str, v: Tensor, c: Tensor) -> Tensor:
    """The projection of v on {F ≤ c}, c with length 1 on the last axis."""
    if name == "abs":
        tau = level(v.abs(), c, ties=False)
        return torch.where(tau < 0, v, soft_threshold(v, tau.abs()))
    if name == "max":
        return torch.where(v < c, v, c)
    return v - soft_threshold(v, c)


def cut_epigraph(name: str, v: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The projection of (v, s) on {F(x) ≤ t}: of the norm by a threshold, of maxima by the height that cuts them."""
    if name == "abs":
        mu = torch.relu(cut(v.abs(), s))
        return soft_threshold(v, mu), s + mu
    if name == "max":
        height = cut(v, -s)
        return torch.where(v < height, v, height), height
    height = torch.relu(cut(v.abs(), -s))
    return v - soft_threshold(v, height), height


def cut(u: Tensor, b: Tensor) -> Tensor:
    """τ with Σ max(u − τ, 0) = τ + b along the last axis, kept: the mean over the entries above it."""
    top = u.detach().sort(dim=-1, descending=True).values
    count = torch.arange(1, u.shape[-1] + 1, dtype=u.dtype, device=u.device)
    above = (top > (top.cumsum(-1) - b.detach()) / (count + 1.0)).sum(-1, keepdim=True)
    least = torch.where(above > 0, top.gather(-1, (above - 1).clamp(min=0)), torch.inf)
    held = u >= least
    return (torch.where(held, u, 0.0).sum(-1, keepdim=True) - b) / (held.sum(-1, keepdim=True) + 1.0)
