"""What Newton steps leave unfinished and intervals bound: the samples that go on by the interior point method."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from opteq_cvx.splitting import interior, newton
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.intervals import ends, polyhedral
from opteq_cvx.splitting.sizes import optimality
from opteq_cvx.splitting.system import matmul


def finished(
    parts: Sequence[Block],
    quadratic: tuple[Tensor, Tensor],
    rows: tuple[Tensor, Tensor],
    data: Sequence[Tensor],
    done: newton.Finish,
    *,
    tolerance: float,
    steps: int,
) -> newton.Finish:
    """`done`, with samples above the tolerance taken further where all rows lie in intervals and that is affordable.

    Args:
        parts: the blocks of g, on the rows of K one after the other.
        quadratic: P (1|B, n, n) and q (1|B, n).
        rows: K (1|B, m, n) and b (1|B, m).
        data: of the blocks.
        steps: what the Newton steps were allowed.
    """
    left = ((done.error > tolerance) & ~done.infeasible & ~done.unbounded).nonzero().squeeze(1)
    (p, q), (k, b), m = quadratic, rows, rows[0].shape[1]
    if not (left.numel() and polyhedral(parts)):
        return done
    if not newton.affordable(left.numel() * 0.7 * (p.shape[1] + m) ** 3, steps):
        return done
    p, q, k, b = (t if t.shape[0] == 1 else t[left] for t in (p, q, k, b))
    lower, upper = ends(parts, m, [t if t.shape[0] == 1 else t[left] for t in data], q)

    def residuals(x: Tensor, w: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return optimality(x, w + b, y, q, b, matmul(x, k.mT), matmul(x, p), matmul(y, k))

    batch = int(left.numel())
    found = interior.finish(p, q, k, lower - b, upper - b, residuals, batch=batch, tolerance=tolerance)
    better = found.error < done.error[left]
    at, pick = left[better], better.nonzero().squeeze(1)
    w = torch.minimum(torch.maximum(found.w + b, lower), upper)
    return replace(
        done,
        x=done.x.index_copy(0, at, found.x[pick]),
        w=done.w.index_copy(0, at, w[pick]),
        y=done.y.index_copy(0, at, found.y[pick]),
        error=done.error.index_copy(0, at, found.error[pick]),
        steps=done.steps.index_add(0, left, found.steps),
    )
