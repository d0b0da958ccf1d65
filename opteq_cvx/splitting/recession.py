"""How values fall far along a ray: slopes of secants from the proxes and values of blocks alone.

Along w + t·d a convex function that is bounded below ends at a bound, and its slope tends to the recession function
rec f(d) ≥ 0. One that falls for ever has rec f(d) < 0, or rec f(d) = 0 and falls ever less, as −ln t and −√t do. From
decade to decade of t the slopes of secants stay (rec f(d) < 0), shrink to a tenth (−ln t) or by less (−√t), or, on the
way to a bound, by more (1/t, t^(−p), e^(−t)). Only their ratios count, so that weights and far points change nothing.
Source: Rockafellar, *Convex Analysis* (1970), section 8 (recession functions, homogeneous and the limit of slopes).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from opteq_cvx.splitting.blocks import Block

FAR = 1e4  # how far along a ray, in units of the point's own size
DECADE, DECADES = 10.0, 4  # from there on, so that a minimum up to 1e8 of those units away shows
LOGARITHM = 0.099  # slopes that fall for ever shrink in a decade to this part or more: to 0.1 where values are −ln t
LINEAR = 0.5  # slopes that shrink less do not shrink but for what has ended since
ROUNDING = 10.0  # units of rounding of what cancels in a slope


def times(reach: Tensor) -> list[Tensor]:
    """The ends of the secants, for points of size `reach` in units of the ray."""
    return [FAR * DECADE**k * reach for k in range(DECADES + 1)]


def secants(
    block: Block, own: Sequence[Tensor], onto: Callable[[Tensor], Tensor], here: Tensor, move: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Slopes of a block's function along `move` (B, rows) over decades (B, DECADES), and the size of their rounding.

    Recession functions are homogeneous: a small part of a ray has to be followed for so much longer, by each group of
    entries that the function sums over. What is no larger than `noise` may be no part of the ray: it proves no fall.

    Args:
        own: the data of the block.
        onto: the projection onto the domain of its function.
        here: the point (B, rows).
        noise: (1|B, rows).
    """
    shape, event = here.shape, block.index.shape
    here, move, noise = (v.reshape(v.shape[0], *event) for v in (here, move, noise))

    def entries(v: Tensor) -> Tensor:
        return block.entries(onto(v.reshape(shape)).reshape(v.shape), own)

    kept = entries(here).shape[1:]
    axes = [i for i, (n, left) in enumerate(zip(event, kept, strict=True), 1) if left < n]
    size, part, blur = (_grouped(v, axes) for v in (here, move, noise))
    small = part <= blur
    ends = times((1.0 + size) / torch.where(small, 1.0, part))
    values = [entries(here + t * move) for t in ends]
    slopes, roundings = [], []
    for t, u, before, after in zip(ends, ends[1:], values, values[1:], strict=False):
        slope = (after - before) / (u - t)
        slopes.append(torch.where(small & (slope < 0), 0.0, slope).reshape(shape[0], -1).sum(1))
        roundings.append(((after.abs() + before.abs()) / (u - t)).reshape(shape[0], -1).sum(1))
    return torch.stack(slopes, dim=1), torch.stack(roundings, dim=1) * torch.finfo(here.dtype).eps


def falls(slopes: Tensor, linear: Tensor, curvature: Tensor, margin: Tensor, rounding: Tensor) -> Tensor:
    """Whether a sum falls for ever (B,), from the slopes (B, DECADES) of what is not quadratic and ⟨q, d⟩, `linear`.

    Args:
        curvature: ½⟨d, Pd⟩ times each decade's sum of ends (B, DECADES), 0 to the accuracy of the ray; a square however
            flat outweighs a descent, far enough along.
        margin: the slope that is certain to be one (B,).
        rounding: of the slopes (B, DECADES).
    """
    total = slopes + linear[:, None] + curvature
    straight = (total[:, 1] < -margin) & (total[:, 1] <= LINEAR * total[:, 0])
    on = ((total < 0) & (total.abs() > ROUNDING * rounding)).all(1)
    on = on & (total[:, 1:] <= LOGARITHM * total[:, :-1]).all(1)
    return straight | (on & (total[:, -1] >= LINEAR * total[:, -2]))


def _grouped(x: Tensor, axes: Sequence[int]) -> Tensor:
    """The norm over these axes, kept with length 1; entries where there is none."""
    return torch.linalg.vector_norm(x, dim=tuple(axes), keepdim=True) if axes else x.abs()
