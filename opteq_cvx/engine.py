"""Engine: one solve of a planned map for a batch, without autograd, and the verdict on every sample."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opteq_cvx.adaptive import adaptive_solve
from opteq_cvx.adjoint.mode import Equilibrated
from opteq_cvx.adjoint.problem import Solve, take
from opteq_cvx.blocked import in_blocks
from opteq_cvx.descent import Map
from opteq_cvx.iterate import Anderson, Inertial, Plain
from opteq_cvx.iterate.contract import Iterate, Iteration, Progress, Restrict, Stop
from opteq_cvx.maps.peek import known_true
from opteq_cvx.selecting import select
from opteq_cvx.selection import SecondStage
from opteq_cvx.splitting.contract import Certificate, Prepared, Splitting, Theta
from opteq_cvx.splitting.infeasibility import certainty
from opteq_cvx.splitting.selected import Selected
from opteq_cvx.stalled import EARLY, LATE, finished
from opteq_cvx.status import Status, code

SMALLEST_MARGIN = 1e-3  # tolerances are divided by at most 1/this for badly conditioned programs
FAST = 0.05  # a modulus from which plain steps are the default
UNKNOWN_MARGIN = 1e-1  # where no modulus is certified
FINE, WIDE = 1e-6, 4096  # tolerances, and sizes of the state (B·d), from which early steps in float32 pay
LOOK = 500  # steps after which a program without a certified modulus is looked at for unboundedness
NOISE = 50.0  # no residual below this many units of rounding is asked for


class Trace:
    """Receives what the differentiable result does not carry: the residual history."""

    def __init__(self) -> None:
        self.history: Tensor | None = None


def forward_solve(
    splitting: Splitting,
    chosen: Iteration | None,
    *,
    tolerance: float,
    max_steps: int,
    trace: Trace | None = None,
    progress: Progress | None = None,
    stage: SecondStage | None = None,
) -> Solve:
    """The solve that the adjoint modes differentiate: prepare, then drive the map to a fixed point."""

    if isinstance(splitting, Selected) and stage is not None:

        def inside(tolerance: float, max_steps: int) -> Solve:
            return forward_solve(splitting.inner, chosen, tolerance=tolerance, max_steps=max_steps)

        return select(splitting, stage, inside, tolerance=tolerance, max_steps=max_steps)

    def solve(z0: Tensor, theta: Theta, prepared: Prepared | None) -> tuple[Iterate, Prepared]:
        ready = splitting.prepare(theta) if prepared is None else prepared
        if splitting.exact:
            return _apply_once(splitting.runner(theta, ready), z0), ready
        margin, rate = _margin(ready.certificate, z0, tolerance), _rate(ready.certificate)
        stop = Stop(tolerance=tolerance, max_steps=max_steps, margin=margin, rate=rate)

        def restrict(rows: Tensor | None) -> Map:
            if rows is None:
                return splitting.runner(theta, ready)
            return splitting.runner(take(theta, rows), Prepared(take(ready.tensors, rows), ready.certificate))

        iteration = chosen if chosen is not None else choose(splitting, ready.certificate, z0.device)
        if splitting.adaptive:
            return adaptive_solve(splitting, iteration, theta, ready, z0, stop)
        bad = _hopeless(ready.certificate, z0)
        hopeless = trace is None and bad is not None and z0.device.type == "cpu" and bool(bad.any())
        escape = rate >= 1.0 and _may_escape(ready.certificate)
        if trace is None and progress is None and stop.max_steps > LOOK and (escape or splitting.descends):
            wanted = ~bad if hopeless and bad is not None else z0.new_ones(z0.shape[0], dtype=torch.bool)
            return _watched(splitting, iteration, restrict, theta, ready, z0, stop, wanted)
        if hopeless and bad is not None:
            done = _skipping(iteration, restrict, z0, _kept(stop), ~bad, progress)
            return _concluded(splitting, theta, ready, done, stop, ~bad)
        if trace is None and progress is None:
            done = _begun(splitting, iteration, restrict, theta, ready, z0, _kept(stop))
        else:
            done = iteration.run(restrict, z0, _kept(stop), history=trace is not None, progress=progress)
        if trace is not None:
            trace.history = done.history
        return _concluded(splitting, theta, ready, done, stop, torch.ones_like(done.converged))

    return solve if trace is not None or progress is not None else in_blocks(solve)


def _begun(
    splitting: Splitting,
    iteration: Iteration,
    restrict: Restrict,
    theta: Theta,
    ready: Prepared,
    z0: Tensor,
    stop: Stop,
) -> Iterate:
    """Iterate on all samples, the early steps in float32 where that pays."""
    if isinstance(iteration, Inertial) and _coarse_pays(ready, z0, stop):
        return iteration.run_mixed(_coarse(splitting, theta, ready), restrict, z0, stop)
    return iteration.run(restrict, z0, stop)


def _may_escape(certificate: Certificate) -> bool:
    """Whether nothing is known that rules out an unbounded program."""
    modulus = certificate.modulus
    return modulus is None or bool((modulus <= 0).any())


def _watched(
    splitting: Splitting,
    iteration: Iteration,
    restrict: Restrict,
    theta: Theta,
    ready: Prepared,
    z0: Tensor,
    stop: Stop,
    wanted: Tensor,
) -> tuple[Iterate, Prepared]:
    """Iterate, and stop early where a look at the drift certifies that the program is unbounded or infeasible, or where
    Newton steps that cost little finish what is slow."""
    early = replace(stop, max_steps=LOOK)
    if bool(wanted.all()):
        done = _begun(splitting, iteration, restrict, theta, ready, z0, early)
    else:
        done = _skipping(iteration, restrict, z0, early, wanted, None)
    ready = _with_drift(splitting, theta, ready, done, stop.tolerance)
    left = _unsettled(ready.certificate, done, wanted)
    done = finished(splitting, theta, ready, done, stop, left, EARLY)
    left = left & ~done.converged
    if not bool(left.any()):
        return done, ready
    used = int(done.steps.max())
    rest = _skipping(iteration, restrict, done.z, _kept(replace(stop, max_steps=stop.max_steps - used)), left, None)
    picked = left[:, None]
    done = Iterate(
        torch.where(picked, rest.z, done.z),
        torch.where(left, rest.residual, done.residual),
        done.steps + rest.steps,
        torch.where(left, rest.converged, done.converged),
        torch.where(left, rest.finite, done.finite),
    )
    return _concluded(splitting, theta, ready, done, stop, left)


def _concluded(
    splitting: Splitting, theta: Theta, ready: Prepared, done: Iterate, stop: Stop, wanted: Tensor
) -> tuple[Iterate, Prepared]:
    """The end of a solve: what is unbounded or infeasible is certified, and what else is left is taken further."""
    ready = _with_drift(splitting, theta, ready, done, stop.tolerance)
    if stop.max_steps <= LOOK:
        return done, ready
    left = _unsettled(ready.certificate, done, wanted)
    return finished(splitting, theta, ready, done, stop, left, LATE), ready


def _kept(stop: Stop) -> Stop:
    """The same with steps kept back for the end, where there are many."""
    return replace(stop, max_steps=stop.max_steps - LATE) if stop.max_steps > LOOK else stop


def _unsettled(certificate: Certificate, done: Iterate, wanted: Tensor) -> Tensor:
    """(B,) the wanted samples that may have a solution and have not been brought to it."""
    left = wanted & done.finite & ~done.converged
    for flag in (certificate.empty, certificate.unbounded):
        left = left if flag is None else left & ~flag
    return left


def _with_drift(splitting: Splitting, theta: Theta, ready: Prepared, done: Iterate, tolerance: float) -> Prepared:
    """What was prepared, with the samples that did not converge because they are unbounded or infeasible certified."""
    if bool(done.converged.all()):
        return ready
    rows = (~done.converged & done.finite).nonzero().squeeze(1)
    part, accuracy = Prepared(take(ready.tensors, rows), Certificate()), certainty(tolerance, done.z.dtype)
    found = splitting.drift(done.z[rows], take(theta, rows), part, accuracy) if rows.numel() else None
    if found is None:
        return ready
    infeasible, unbounded = (torch.zeros_like(done.converged).index_copy(0, rows, flag) for flag in found)
    empty, before = ready.certificate.empty, ready.certificate.unbounded
    empty = infeasible if empty is None else empty | infeasible
    unbounded = unbounded if before is None else unbounded | before
    return Prepared(ready.tensors, replace(ready.certificate, empty=empty, unbounded=unbounded))


def choose(splitting: Splitting, certificate: Certificate, device: torch.device) -> Iteration:
    """Tuned momentum for proximal-gradient steps; plain ones where others contract fast; else Anderson.

    Away from the CPU, where the heavy ball would wait for its residuals, momentum only where steps contract fast.
    """
    modulus = certificate.modulus
    if splitting.descends and device.type == "cpu":
        return Inertial()
    fast = modulus is not None and modulus.numel() > 0 and bool((modulus >= FAST).all())
    if splitting.descends and fast:
        return Inertial()
    return Plain() if fast else Anderson()


def _coarse_pays(ready: Prepared, z0: Tensor, stop: Stop) -> bool:
    """Whether early steps in float32 save more than the conversion costs."""
    return z0.dtype is torch.float64 and stop.tolerance <= FINE and z0.numel() >= WIDE and ready.tensors[1].ndim == 3


def _coarse(splitting: Splitting, theta: Theta, ready: Prepared) -> Map:
    """The map in float32: its fixed point is near enough for the early steps."""
    tensors = tuple(t.float() if t.is_floating_point() else t for t in ready.tensors)
    return splitting.runner(tuple(t.float() for t in theta), Prepared(tensors, ready.certificate))


def _apply_once(map_: Map, z0: Tensor) -> Iterate:
    z = map_(z0)
    sound = torch.isfinite(z).all(dim=1)
    zeros = z.new_zeros(z.shape[0])
    return Iterate(z, zeros, torch.ones_like(zeros, dtype=torch.int64), sound, sound)


def _margin(certificate: Certificate, like: Tensor, tolerance: float) -> Tensor:
    floor = NOISE * torch.finfo(like.dtype).eps / tolerance
    if certificate.modulus is None:
        return like.new_full((1,), max(UNKNOWN_MARGIN, floor))
    return certificate.modulus.clamp(min=SMALLEST_MARGIN, max=1.0).clamp_min(floor)


def _rate(certificate: Certificate) -> float:
    """The certified rate of contraction of the slowest sample, 1 where none is known or it would have to be awaited."""
    modulus = certificate.modulus
    if modulus is None or modulus.numel() == 0 or modulus.device.type != "cpu":
        return 1.0
    return 1.0 - min(max(float(modulus.nan_to_num(0.0).min()), 0.0), 1.0)


def _hopeless(certificate: Certificate, like: Tensor) -> Tensor | None:
    """(B,) samples whose program is not convex or empty: iterating them is wasted."""
    flags = [~certificate.convex] if certificate.convex is not None else []
    flags += [certificate.empty] if certificate.empty is not None else []
    if not flags:
        return None
    total = flags[0] if len(flags) == 1 else flags[0] | flags[1]
    return total.expand(like.shape[0])


def _skipping(
    iteration: Iteration, restrict: Restrict, z0: Tensor, stop: Stop, wanted: Tensor, progress: Progress | None
) -> Iterate:
    """Run on the wanted samples only, so that a hopeless one costs nothing."""
    rows = z0.shape[0]
    flags = torch.zeros(rows, dtype=torch.bool, device=z0.device)
    steps = torch.zeros(rows, dtype=torch.int64, device=z0.device)
    out = Iterate(z0.clone(), z0.new_full((rows,), torch.inf), steps, flags, ~flags)
    good = wanted.nonzero().squeeze(1)
    if not good.numel():
        return out
    margin = stop.margin if stop.margin is None or stop.margin.shape[0] == 1 else stop.margin[good]
    inner = replace(stop, margin=margin)
    done = iteration.run(
        lambda part: restrict(good if part is None else good[part]), z0[good], inner, progress=progress
    )
    out.z[good], out.residual[good], out.steps[good] = done.z, done.residual, done.steps
    out.converged[good], out.finite[good] = done.converged, done.finite
    return out


@dataclass(frozen=True, slots=True)
class Verdict:
    """A status code per sample."""

    codes: Tensor


def judge(eq: Equilibrated, finite: Tensor, valid: Tensor) -> Verdict:
    """The status of every sample; `finite` and `valid` (B,) describe its data."""
    certificate = eq.prepared.certificate
    if known_true(eq.converged & ~eq.failed & eq.finite & finite & valid):  # the usual case
        return Verdict(torch.full_like(eq.steps, code(Status.CONVERGED)))
    codes = torch.where(eq.converged, code(Status.CONVERGED), code(Status.MAX_STEPS))
    codes = torch.where(eq.finite, codes, code(Status.DIVERGED))
    if certificate.unbounded is not None:
        codes = torch.where(certificate.unbounded, code(Status.DUAL_INFEASIBLE), codes)
    if certificate.empty is not None:
        codes = torch.where(certificate.empty, code(Status.PRIMAL_INFEASIBLE), codes)
    if certificate.convex is not None:
        codes = torch.where(certificate.convex, codes, code(Status.NOT_CONVEX))
    codes = torch.where(valid, codes, code(Status.INVALID_INPUT))
    codes = torch.where(finite, codes, code(Status.NON_FINITE_INPUT))
    return Verdict(codes)


def distance(eq: Equilibrated) -> Tensor:
    """The certified bound on ‖z − z*‖ (B,); inf where no modulus is known."""
    unknown, modulus = torch.full_like(eq.residual, torch.inf), eq.prepared.certificate.modulus
    if modulus is None:
        return unknown
    size = torch.linalg.vector_norm(eq.z.detach(), dim=1).clamp_min(1.0)
    return torch.where(modulus > 0, eq.residual * size / modulus.clamp_min(1e-300), unknown)
