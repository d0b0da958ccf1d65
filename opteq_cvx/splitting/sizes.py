"""Sizes of residuals: maximum norms of rows, and what they are taken relative to."""

from collections.abc import Sequence

import torch
from torch import Tensor


def top(x: Tensor) -> Tensor:
    """The maximum norm of each row, (B, d) → (B,); 0 for empty rows."""
    return x.abs().amax(dim=1) if x.shape[1] else x.new_zeros(x.shape[0])


def most(sizes: Sequence[Tensor]) -> Tensor:
    """The largest of the sizes (B,), at least 1."""
    total = sizes[0]
    for size in sizes[1:]:
        total = torch.maximum(total, size)
    return total.clamp_min(1.0)
