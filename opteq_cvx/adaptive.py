"""Solve in rounds: drive the map, measure the program's optimality error, rebalance the map, repeat on what is left."""

import torch
from torch import Tensor

from opteq_cvx.adjoint.problem import take
from opteq_cvx.iterate.contract import Gauge, Iterate, Iteration, Map, Measure, Restrict, Stop
from opteq_cvx.splitting.contract import Prepared, Splitting, Theta

FIRST_ROUND = 25  # evaluations of T before the first look at the residuals
ROUNDING = 1e3  # no optimality error below this many units of rounding is asked for
GROWTH = 1.3
REBALANCES = 12  # at most so many changes of the map


def adaptive_solve(
    splitting: Splitting, iteration: Iteration, theta: Theta, prepared: Prepared, z0: Tensor, stop: Stop
) -> tuple[Iterate, Prepared]:
    """Take z0 (B, d) to a point whose optimality error is below `stop.tolerance`, sample by sample."""
    rows = z0.shape[0]
    z, residual = z0.clone(), z0.new_full((rows,), torch.inf)
    steps = torch.zeros(rows, dtype=torch.int64, device=z0.device)
    converged = torch.zeros(rows, dtype=torch.bool, device=z0.device)
    finite = torch.ones_like(converged)
    active = _hopeful(prepared, converged).nonzero().squeeze(1)
    accuracy = max(stop.tolerance, ROUNDING * torch.finfo(z.dtype).eps)
    used, length, changes = 0, float(FIRST_ROUND), 0
    while active.numel() and used < stop.max_steps:
        part, ready = take(theta, active), Prepared(take(prepared.tensors, active), prepared.certificate)
        count = min(int(length), stop.max_steps - used)
        gauge = _gauge(splitting, part, ready)
        inner = Stop(tolerance=accuracy, max_steps=count, check_every=stop.check_every, gauge=gauge)
        done = iteration.run(_restricted(splitting, part, ready), z[active], inner)
        z[active], residual[active], finite[active] = done.z, done.residual, done.finite
        steps[active] += done.steps
        used, length = used + int(done.steps.max()), length * GROWTH
        good = done.converged
        converged[active] = good
        active = active[done.finite & ~good]
        if active.numel() and changes < REBALANCES:
            change = splitting.rebalance(z, theta, prepared)
            if change is not None:
                (z, prepared), changes = change, changes + 1
    return Iterate(z, residual, steps, converged, finite), prepared


def _hopeful(prepared: Prepared, like: Tensor) -> Tensor:
    certificate, keep = prepared.certificate, torch.ones_like(like)
    if certificate.convex is not None:
        keep = keep & certificate.convex
    return keep if certificate.empty is None else keep & ~certificate.empty


def _gauge(splitting: Splitting, theta: Theta, prepared: Prepared) -> Gauge:
    """The optimality error of the program as the driver's measure."""

    def gauge(rows: Tensor | None) -> Measure:
        if rows is None:
            return lambda z, image: splitting.error(z, theta, prepared)
        part, ready = take(theta, rows), Prepared(take(prepared.tensors, rows), prepared.certificate)
        return lambda z, image: splitting.error(z, part, ready)

    return gauge


def _restricted(splitting: Splitting, theta: Theta, prepared: Prepared) -> Restrict:
    def restrict(rows: Tensor | None) -> Map:
        if rows is None:
            return splitting.runner(theta, prepared)
        return splitting.runner(take(theta, rows), Prepared(take(prepared.tensors, rows), prepared.certificate))

    return restrict
