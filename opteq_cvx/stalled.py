"""What an iteration has not brought to the tolerance is taken further by other means of the splitting: Newton steps."""

from dataclasses import replace

import torch
from torch import Tensor

from opteq_cvx.adjoint.problem import take
from opteq_cvx.iterate.contract import Iterate, Stop
from opteq_cvx.splitting.contract import Certificate, Prepared, Splitting, Theta

EARLY, LATE = 40, 160
"""Steps allowed on the way, where the iteration may still get there, and after it gave up; the later, the dearer."""

CLOSER = 0.5  # the share of the tolerance that they are asked for, as theirs is not the residual of the map


def finished(
    splitting: Splitting, theta: Theta, ready: Prepared, done: Iterate, stop: Stop, left: Tensor, steps: int
) -> Iterate:
    """`done` with the samples `left` (B,) where the splitting's other means bring them closer to the fixed point."""
    rows = left.nonzero().squeeze(1)
    if not rows.numel():
        return done
    data, part = take(theta, rows), Prepared(take(ready.tensors, rows), Certificate())
    goal = _goal(stop, rows, done.residual)
    found = splitting.polish(done.z[rows], data, part, CLOSER * float(goal.min()), steps)
    if found is None:
        return done
    z = found.z
    gap = torch.linalg.vector_norm(z - splitting.runner(data, part)(z), dim=1)
    residual = (gap / torch.linalg.vector_norm(z, dim=1).clamp_min(1.0)).nan_to_num(torch.inf)
    closer = residual < done.residual[rows]
    at = rows[closer]
    return replace(
        done,
        z=done.z.index_copy(0, at, z[closer]),
        residual=done.residual.index_copy(0, at, residual[closer]),
        steps=done.steps.index_add(0, rows, found.steps),
        converged=done.converged.index_copy(0, at, (residual <= goal)[closer]),
    )


def _goal(stop: Stop, rows: Tensor, like: Tensor) -> Tensor:
    """The residual that is asked for, of each row."""
    if stop.margin is None:
        return like.new_full(rows.shape, stop.tolerance)
    margin = stop.margin.detach().to(like)
    return stop.tolerance * (margin.expand(rows.shape) if margin.shape[0] == 1 else margin[rows])
