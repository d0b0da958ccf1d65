"""The joint prox of blocks that shrink and clip entry by entry, as data: thresholds and bounds of all coordinates."""

from collections.abc import Sequence

import torch
from torch import Tensor

from opteq_cvx.fused import Clip
from opteq_cvx.splitting.blocks import Block

INTERVALS = ("nonneg", "nonpos", "zero", "box")


def clip_of(blocks: Sequence[Block], n: int, gamma: Tensor, theta: Sequence[Tensor]) -> Clip | None:
    """prox of γ times the blocks (γ (1|B,)) as a `Clip` on u (B, n); None where some block is of another kind."""
    if not all(_fits(block) for block in blocks):
        return None
    rows = max([gamma.shape[0], *(t.shape[0] for t in theta)], default=1)
    threshold, infinite = gamma.new_zeros(rows, n), gamma.new_full((rows, n), torch.inf)
    found, values = Clip(threshold, -infinite, infinite), list(theta)
    for block in blocks:
        own, values = values[: len(block.exprs)], values[len(block.exprs) :]
        _write(block, gamma, own, found)
    return found


def _fits(block: Block) -> bool:
    if block.offset is not None or (block.interval is not None and not _fits(block.interval)):
        return False
    return block.f.name == "abs" or (block.f.name in INTERVALS and block.scale is None)


def _write(block: Block, gamma: Tensor, theta: Sequence[Tensor], into: Clip) -> None:
    flat = torch.as_tensor(block.index.reshape(-1).copy(), device=gamma.device)
    values = list(theta)

    def spread(value: Tensor) -> Tensor:
        """(1|B, *shape) → (1|B, entries of the block)."""
        missing = block.index.ndim + 1 - value.ndim
        wide = value.reshape(value.shape[0], *(1,) * missing, *value.shape[1:])
        return wide.expand(value.shape[0], *block.index.shape).reshape(value.shape[0], -1)

    weight = spread(values.pop(0)) if block.weight is not None else torch.ones_like(gamma[:, None])
    if block.scale is not None:  # |s u| = |s| |u|
        weight = weight * spread(values.pop(0)).abs()
    data = {key: spread(values.pop(0)) for key in block.data}
    match block.f.name:
        case "abs":
            into.threshold[:, flat] = (gamma[:, None] * weight).expand(-1, flat.numel())
        case "nonneg":
            into.lower[:, flat] = 0.0
        case "nonpos":
            into.upper[:, flat] = 0.0
        case "zero":
            into.lower[:, flat] = 0.0
            into.upper[:, flat] = 0.0
        case _:
            into.lower[:, flat], into.upper[:, flat] = data["lower"], data["upper"]
    if block.interval is not None:
        _write(block.interval, gamma, values, into)
