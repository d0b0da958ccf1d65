"""Between named variables and the flat vector u that the maps act on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from opteq_cvx.ir.frozen import size
from opteq_cvx.ir.layout import Layout


def split(u: Tensor, layout: Layout) -> dict[str, Tensor]:
    """(B, n) → each variable (B, *shape)."""
    return {
        name: u[:, start : start + size(shape)].reshape(u.shape[0], *shape)
        for name, shape, start in zip(layout.names, layout.shapes, layout.starts, strict=True)
    }


def join(parts: Mapping[str, Tensor], layout: Layout, like: Tensor) -> Tensor:
    """Variables (1|B, *shape) → (1|B, n) in the layout's order; missing ones are zero, sizes 1 broadcast."""
    rows = max((t.shape[0] for t in parts.values()), default=1)
    columns = []
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        if name in parts:
            columns.append(parts[name].reshape(parts[name].shape[0], size(shape)).expand(rows, -1))
        else:
            columns.append(like.new_zeros(rows, size(shape)))
    return torch.cat(columns, dim=1) if len(columns) != 1 else columns[0]
