"""Solve in rounds: drive the map, measure the program's optimality error, rebalance the map, repeat on what is left."""

import torch
from torch import Tensor

from opteq_cvx.adjoint.problem import take
from opteq_cvx.iterate.contract import Iterate, Iteration, Map, Restrict, Stop
from opteq_cvx.splitting.contract import Prepared, Splitting, Theta

FIRST_ROUND = 40  # evaluations of T before the first look at the residuals
ROUNDING = 1e3  # no optimality error below this many units of rounding is asked for
GROWTH = 1.5
TIGHTEN = 0.1  # the map's tolerance where its residual was met and the program's error was not


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
    used, length, tolerance = 0, float(FIRST_ROUND), stop.tolerance
    while active.numel() and used < stop.max_steps:
        part, ready = take(theta, active), Prepared(take(prepared.tensors, active), prepared.certificate)
        count = min(int(length), stop.max_steps - used)
        inner = Stop(tolerance=tolerance, max_steps=count, check_every=stop.check_every, margin=stop.margin)
        done = iteration.run(_restricted(splitting, part, ready), z[active], inner)
        z[active], residual[active], finite[active] = done.z, done.residual, done.finite
        steps[active] += done.steps
        used, length = used + count, length * GROWTH
        error = splitting.error(done.z, part, ready)
        assert error is not None  # adaptive splittings measure it
        good = done.finite & (error <= accuracy)
        converged[active] = good
        if bool((done.converged & ~good).any()):
            tolerance = max(tolerance * TIGHTEN, 4 * torch.finfo(z.dtype).eps)
        active = active[done.finite & ~good]
        if active.numel():
            change = splitting.rebalance(z, theta, prepared)
            z, prepared = change if change is not None else (z, prepared)
    return Iterate(z, residual, steps, converged, finite), prepared


def _hopeful(prepared: Prepared, like: Tensor) -> Tensor:
    certificate, keep = prepared.certificate, torch.ones_like(like)
    if certificate.convex is not None:
        keep = keep & certificate.convex
    return keep if certificate.empty is None else keep & ~certificate.empty


def _restricted(splitting: Splitting, theta: Theta, prepared: Prepared) -> Restrict:
    def restrict(rows: Tensor | None) -> Map:
        if rows is None:
            return splitting.runner(theta, prepared)
        return splitting.runner(take(theta, rows), Prepared(take(prepared.tensors, rows), prepared.certificate))

    return restrict
