"""Solve in rounds: drive the map by the program's optimality error, look for infeasibility, rebalance, repeat."""

from dataclasses import replace

import torch
from torch import Tensor

from opteq_cvx.adjoint.problem import take
from opteq_cvx.descent import Map
from opteq_cvx.iterate.contract import Gauge, Iterate, Iteration, Measure, Restrict, Stop
from opteq_cvx.splitting.contract import Certificate, Prepared, Splitting, Theta
from opteq_cvx.splitting.infeasibility import certainty
from opteq_cvx.splitting.sizes import WORTHLESS

FIRST_ROUND = 25  # evaluations of T before the first look
GROWTH = 1.3
REBALANCES = 12  # at most so many changes of the map
PROBES = 3  # rounds after which the plain iteration's drift is watched, too
POLISH = 3  # every so many rounds the splitting may finish by other means,
POLISH_STEPS, POLISH_MOST = 40, 640  # at first so many steps, then four times as many, up to a limit
PROBE_STEPS = 0.5  # its length, as a share of the round's
FALL = 0.1  # polishing goes on at once where it makes the residual so much smaller
ROUNDING = 1e3  # no optimality error below this many units of rounding is asked for


def adaptive_solve(
    splitting: Splitting, iteration: Iteration, theta: Theta, prepared: Prepared, z0: Tensor, stop: Stop
) -> tuple[Iterate, Prepared]:
    """Take z0 (B, d) to a point whose optimality error is below `stop.tolerance`, sample by sample."""
    rounds = Rounds(splitting, theta, prepared, z0)
    accuracy = max(stop.tolerance, ROUNDING * torch.finfo(z0.dtype).eps)
    watch = not splitting.solvable(theta)
    used, length, number, changes, polish = 0, float(FIRST_ROUND), 0, 0, POLISH_STEPS
    while rounds.active.numel() and used < stop.max_steps:
        count = min(int(length), stop.max_steps - used)
        used += rounds.drive(iteration, replace(stop, tolerance=accuracy, max_steps=count, margin=None))
        number, length = number + 1, length * GROWTH
        if rounds.active.numel() and number >= PROBES and watch:
            rounds.probe(max(1, int(PROBE_STEPS * count)), accuracy)
        if rounds.active.numel() and number % POLISH == 0 and used < stop.max_steps and polish <= POLISH_MOST:
            while rounds.active.numel() and used < stop.max_steps:
                before = rounds.residual.clone()
                used += rounds.polish(accuracy, min(polish, stop.max_steps - used))
                if not rounds.falls(before):
                    break
            polish *= 4
        if rounds.active.numel() and changes < REBALANCES and rounds.rebalance():
            changes += 1
    return rounds.result()


class Rounds:
    """What is known of each sample between rounds; `active` are the samples still to be solved."""

    def __init__(self, splitting: Splitting, theta: Theta, prepared: Prepared, z0: Tensor) -> None:
        rows = z0.shape[0]
        self.splitting, self.theta, self.prepared = splitting, theta, prepared
        self.z, self.residual = z0.clone(), z0.new_full((rows,), torch.inf)
        self.first, self.plain = prepared, z0.clone()  # the plain map, whose drift tells infeasible programs
        self.fallen = torch.zeros(rows, dtype=torch.bool, device=z0.device)  # back to it, for good
        self.steps = torch.zeros(rows, dtype=torch.int64, device=z0.device)
        self.converged = torch.zeros(rows, dtype=torch.bool, device=z0.device)
        self.finite = torch.ones_like(self.converged)
        certificate = prepared.certificate
        self.empty = _flag(certificate.empty, self.converged)
        self.unbounded = _flag(certificate.unbounded, self.converged)
        convex = ~_flag(certificate.convex if certificate.convex is None else ~certificate.convex, self.converged)
        self.active = (convex & ~self.empty & ~self.unbounded).nonzero().squeeze(1)

    def part(self) -> tuple[Theta, Prepared]:
        """The data of the active samples."""
        certificate = self.prepared.certificate
        return take(self.theta, self.active), Prepared(take(self.prepared.tensors, self.active), certificate)

    def drive(self, iteration: Iteration, stop: Stop) -> int:
        """One round of accelerated steps on the active samples; the number of steps it took."""
        theta, prepared = self.part()
        stop = replace(stop, gauge=_gauge(self.splitting, theta, prepared))
        done = iteration.run(_restricted(self.splitting, theta, prepared), self.z[self.active], stop)
        self.z[self.active], self.residual[self.active], self.finite[self.active] = done.z, done.residual, done.finite
        self.steps[self.active] += done.steps
        self.converged[self.active] = done.converged
        lost = ~done.finite & ~self.fallen[self.active]
        if bool(lost.any()):
            self.fall_back(self.active[lost])
        self.active = self.active[(done.finite | lost) & ~done.converged]
        return int(done.steps.max())

    def fall_back(self, rows: Tensor) -> None:
        """Go on from the plain iterates, in the first map: rounding has thrown these samples out of a changed one."""
        self.fallen[rows] = True
        self.z[rows], self.residual[rows], self.finite[rows] = self.plain[rows], torch.inf, True
        self.prepared = self.kept(self.prepared)

    def kept(self, prepared: Prepared) -> Prepared:
        """The map, for samples that have fallen back the first one."""
        pairs = zip(prepared.tensors, self.first.tensors, strict=True)
        return replace(prepared, tensors=tuple(_where(self.fallen, first, now) for now, first in pairs))

    def probe(self, count: int, accuracy: float) -> None:
        """Advance the plain map and look at its drift: samples certified infeasible or unbounded are done."""
        theta, prepared = take(self.theta, self.active), Prepared(take(self.first.tensors, self.active), Certificate())
        advance, z = self.splitting.runner(theta, prepared), self.plain[self.active]
        for _ in range(count):
            z = advance(z)
        self.plain[self.active] = z
        found = self.splitting.drift(z, theta, prepared, certainty(accuracy, z.dtype))
        if found is not None:
            infeasible, unbounded = found
            self.empty[self.active], self.unbounded[self.active] = infeasible, unbounded & ~infeasible
            self.active = self.active[~(infeasible | unbounded)]

    def polish(self, accuracy: float, count: int) -> int:
        """Let the splitting finish the active samples by other means; keep what came closer."""
        theta, prepared = self.part()
        found = self.splitting.polish(self.z[self.active], theta, prepared, accuracy, count)
        if found is None:
            return 0
        z, steps, ready = found.z, found.steps, prepared if found.prepared is None else found.prepared
        residual = self.splitting.error(z, theta, ready).nan_to_num(torch.inf)
        before = self.residual[self.active]
        better = (residual < before) | (torch.minimum(residual, before) >= WORTHLESS)
        rows = self.active[better]
        if found.prepared is not None:
            tensors = zip(self.prepared.tensors, ready.tensors, strict=True)
            put = tuple(_put(old, new, rows, better, self.z.shape[0]) for old, new in tensors)
            self.prepared = replace(self.prepared, tensors=put)
        self.z[rows], self.residual[rows] = z[better], residual[better]
        self.steps[self.active] += steps
        self.converged[rows] = residual[better] <= accuracy
        self.empty[self.active] |= found.infeasible & ~self.converged[self.active]
        self.unbounded[self.active] |= found.unbounded & ~found.infeasible & ~self.converged[self.active]
        over = self.converged | self.empty | self.unbounded
        self.active = self.active[~over[self.active]]
        return int(steps.max())

    def falls(self, before: Tensor) -> bool:
        """Whether the residual of all active samples is a small part of what it was."""
        return bool((self.residual[self.active] <= FALL * before[self.active]).all())

    def rebalance(self) -> bool:
        """Change the map where the splitting asks for it."""
        change = self.splitting.rebalance(self.z, self.theta, self.prepared)
        if change is None:
            return False
        z, prepared = change
        if bool(self.fallen.any()):
            z, prepared = torch.where(self.fallen[:, None], self.z, z), self.kept(prepared)
        self.z, self.prepared = z, prepared
        return True

    def result(self) -> tuple[Iterate, Prepared]:
        """All samples, and the map they ended with, its certificate extended by what was found."""
        certificate = replace(self.prepared.certificate, empty=self.empty, unbounded=self.unbounded)
        iterate = Iterate(self.z, self.residual, self.steps, self.converged, self.finite)
        return iterate, Prepared(self.prepared.tensors, certificate)


def _put(old: Tensor, new: Tensor, rows: Tensor, picked: Tensor, batch: int) -> Tensor:
    """old (1|batch, …) with its `rows` replaced by those of new (1|B, …) that are `picked` (B,); itself where both are
    shared."""
    if old.shape[0] == 1 and new.shape[0] == 1 and batch > 1:
        return old
    whole = old.expand(batch, *old.shape[1:]).clone()
    whole[rows] = new.expand(picked.shape[0], *new.shape[1:])[picked]
    return whole


def _where(rows: Tensor, these: Tensor, others: Tensor) -> Tensor:
    """Of tensors (1|B, …) `these` for the rows (B,), `others` for the rest; themselves where both are one."""
    if these is others:
        return others
    return torch.where(rows.reshape(-1, *(1,) * (others.ndim - 1)), these, others)


def _flag(flag: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if flag is None else flag.expand_as(like).clone()


def _gauge(splitting: Splitting, theta: Theta, prepared: Prepared) -> Gauge:
    """The optimality error of the program as the driver's measure."""

    def gauge(rows: Tensor | None) -> Measure:
        part, ready = theta, prepared
        if rows is not None:
            part, ready = take(theta, rows), Prepared(take(prepared.tensors, rows), prepared.certificate)
        measured = splitting.gauge(part, ready)
        return lambda z, image: measured(z)

    return gauge


def _restricted(splitting: Splitting, theta: Theta, prepared: Prepared) -> Restrict:
    def restrict(rows: Tensor | None) -> Map:
        if rows is None:
            return splitting.runner(theta, prepared)
        return splitting.runner(take(theta, rows), Prepared(take(prepared.tensors, rows), prepared.certificate))

    return restrict
