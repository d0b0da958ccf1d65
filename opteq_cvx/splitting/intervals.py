"""Programs whose rows lie in intervals, l ≤ Kx + b ≤ u: quadratic and linear programs; l and u from the proxes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from opteq_cvx.atoms import Trait
from opteq_cvx.splitting.blocks import Block, bind

FAR = 1e-2  # of the largest number: a bound beyond it bounds nothing


def polyhedral(parts: Sequence[Block]) -> bool:
    """Whether every block is an interval on rows of its own, without a function."""
    return bool(parts) and all(Trait.INTERVAL in b.f.traits and b.weight is None and b.interval is None for b in parts)


def ends(parts: Sequence[Block], m: int, data: Sequence[Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    """l and u (1|B, m), ±∞ where there is none: the projections of very small and very large numbers."""
    far = FAR * torch.finfo(like.dtype).max
    project = bind(parts, m, like.new_ones(1), data, None)
    lower, upper = project(like.new_full((1, m), -far)), project(like.new_full((1, m), far))
    return torch.where(lower <= -far, -torch.inf, lower), torch.where(upper >= far, torch.inf, upper)
