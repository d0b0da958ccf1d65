"""The solve behind a selection: the nodes of the path to rounding, the extrapolation, and how far it can be trusted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opteq_cvx.adjoint.krylov.automatic import Automatic
from opteq_cvx.adjoint.krylov.contract import LinearSolver, System
from opteq_cvx.adjoint.krylov.direct import Direct
from opteq_cvx.adjoint.problem import Solve, take
from opteq_cvx.iterate.averaging import AveragingMethod, Second
from opteq_cvx.iterate.contract import Iterate
from opteq_cvx.selection import SecondStage
from opteq_cvx.splitting.contract import Certificate, Prepared, Splitting, Theta
from opteq_cvx.splitting.linearization import Linearization
from opteq_cvx.splitting.quadratic import spectrum
from opteq_cvx.splitting.selected import EDGE, LIMIT, NEARER, Selected

FIRST = {torch.float64: 2.0**-11, torch.float32: 2.0**-6}  # of ε, relative: truncation ε⁴ against rounding eps/ε
FIRST_RIDGE = {torch.float64: 2.0**-7, torch.float32: 2.0**-4}  # with ρ = ε²: rounding is eps/ε²
SHRINK, LEVELS = 4.0, 5
POLISH = 60  # steps of the augmented Lagrangian where Newton alone fails
ROUND, ROUNDS = 200, 3  # steps of the map before Newton takes over, four times as many where that fails, so often
COARSE = 8.0  # on the way to the first ε it falls by this factor, from 1: few active sets change at a time
NEWTON = 12  # Newton steps in one go
WORSE = 100.0  # ε shrinks no further where the worst case of rounding exceeds so many tolerances
MOVE = 0.05  # of the tolerance, that a last Newton step may still move a node
ROUNDING = 50.0  # no residual below this many units of rounding is asked for
NEAR = 1e3  # a residual of so many units of rounding is accepted where no step betters it
SHARE = 1e-2  # of the tolerance, that the residual at the smallest ε may cost
DENSE_WORK = 4e9  # up to this B·d³ Newton's systems are factored

Drive = Callable[[float, int], Solve]
"""drive(tolerance, max_steps) solves the inner map by the layer's own iteration."""


def select(splitting: Selected, stage: SecondStage, drive: Drive, *, tolerance: float, max_steps: int) -> Solve:
    """The solve of `Selected` maps, in float64 whatever the dtype; ε shrinks until two extrapolations agree.

    The residual it reports is the estimated relative error of the selected point. `convex` refers to F itself.
    """

    def solve(z0: Tensor, theta: Theta, prepared: Prepared | None) -> tuple[Iterate, Prepared]:
        if z0.dtype == torch.float64:
            return wide(z0, theta, _first(stage, z0.dtype))
        done, ready = wide(z0.double(), tuple(t.double() for t in theta), _first(stage, z0.dtype))
        narrow = tuple(t.to(z0.dtype) if t.is_floating_point() else t for t in ready.tensors)
        iterate = replace(done, z=done.z.to(z0.dtype), residual=done.residual.to(z0.dtype))
        return iterate, Prepared(narrow, ready.certificate)

    def wide(z0: Tensor, theta: Theta, first: float) -> tuple[Iterate, Prepared]:
        own = splitting.inner.prepare(splitting.base(theta)).certificate
        states = list(splitting.states(z0))
        if isinstance(stage.method, AveragingMethod):
            states = [_averaged(splitting, stage.method, states[0], theta)] * len(states)
        if not splitting.inner.adaptive:
            states = [_approach(splitting, drive, states[0], theta, first)] * len(states)
        best: tuple[Iterate, Prepared] | None = None
        steps = torch.zeros(z0.shape[0], dtype=torch.int64, device=z0.device)
        for level in range(LEVELS):
            relative = first / SHRINK**level
            noise = torch.finfo(z0.dtype).eps / (relative if stage.strong else relative**2)
            if best is not None and noise > WORSE * tolerance:
                break
            found = _level(splitting, drive, states, theta, relative, tolerance, max_steps)
            steps = steps + found[0].steps
            if best is None or _better(found[0], best[0]):
                best = found
            if bool((found[0].converged | ~found[0].finite).all()):
                break
            states = [s.nan_to_num(0.0, 0.0, 0.0) for s in splitting.states(found[0].z)]
        assert best is not None
        done, ready = best
        certificate = ready.certificate
        convex = own.convex if own.convex is not None else certificate.convex
        ready = Prepared(ready.tensors, Certificate(None, convex, certificate.empty, certificate.unbounded))
        return Iterate(done.z, done.residual, steps, done.converged, done.finite), ready

    return solve


def _first(stage: SecondStage, dtype: torch.dtype) -> float:
    given = getattr(stage.method, "epsilon", None)
    table = FIRST if stage.strong else FIRST_RIDGE
    return float(given) if given is not None else table.get(dtype, 2.0**-4)


def _better(new: Iterate, old: Iterate) -> bool:
    """Whether more samples are done, or as many with a smaller worst error."""
    counts = [int(x.converged.sum()) for x in (new, old)]
    if counts[0] != counts[1]:
        return counts[0] > counts[1]
    worst = [float(x.residual.nan_to_num(torch.inf).median()) if x.residual.numel() else 0.0 for x in (new, old)]
    return worst[0] < worst[1]


def _level(
    splitting: Selected,
    drive: Drive,
    states: Sequence[Tensor],
    theta: Theta,
    relative: float,
    tolerance: float,
    max_steps: int,
) -> tuple[Iterate, Prepared]:
    """The nodes at one ε, each started at the one before, and the error of what they extrapolate to."""
    epsilon, rho = splitting.at(theta, relative)
    goal = max(ROUNDING * torch.finfo(theta[1].dtype).eps, SHARE * tolerance * relative)
    nodes: list[Node] = []
    for data, z in zip(splitting.nodes(theta, epsilon, rho), states, strict=True):
        nodes.append(_node(splitting.inner, drive, nodes[-1].z if nodes else z, data, goal, tolerance, max_steps))
    ready = splitting.packed(epsilon, rho, [n.ready for n in nodes])
    z = torch.cat([n.z for n in nodes], dim=1)
    solutions = splitting.solutions(z, theta, ready)
    error = spread(splitting, solutions)
    solved, finite = (torch.stack(flags).all(0) for flags in ([n.solved for n in nodes], [n.finite for n in nodes]))
    error = torch.where(finite, error, torch.inf)
    steps = torch.stack([n.steps for n in nodes]).sum(0)
    return Iterate(z, error, steps, solved & (error <= tolerance), finite), ready


def spread(splitting: Selected, solutions: Sequence[Tensor]) -> Tensor:
    """The estimated relative error (B,) of the extrapolation from the nodes.

    The extrapolations of second and third order differ by d₁, those of third and fourth by d₂: where the terms of the
    series fall, the error of the last is about d₂²/d₁, where they do not, d₂.
    """
    best, near, line = (splitting.combine(solutions, weights) for weights in (LIMIT, NEARER, EDGE))
    size = best.norm(dim=1).clamp_min(1.0)
    first, second = (near - line).norm(dim=1), (best - near).norm(dim=1)
    ratio = torch.where(first > 0, second / first, 0.0)
    error: Tensor = second * (4.0 * ratio).clamp(max=1.0) / size
    return error


@dataclass(frozen=True, slots=True)
class Node:
    """u(ε) at one ε: its state, the map it is a fixed point of, and how the solve went, per sample."""

    z: Tensor
    ready: Prepared
    steps: Tensor
    solved: Tensor
    finite: Tensor


def _approach(splitting: Selected, drive: Drive, z: Tensor, theta: Theta, first: float) -> Tensor:
    """A state near u(ε) for the first ε, by following the path from ε = 1, where the map contracts fast."""
    relative = 1.0
    while relative > 2.0 * first:
        epsilon, rho = splitting.at(theta, relative)
        node = _node(splitting.inner, drive, z, splitting.node(theta, epsilon, rho), 1e-9, 1e-6, ROUND)
        z = torch.where(node.finite[:, None], node.z, z)
        relative /= COARSE
    return z


def _node(
    inner: Splitting, drive: Drive, z: Tensor, theta: Theta, goal: float, tolerance: float, max_steps: int
) -> Node:
    """Steps of the map, then Newton steps on its residual, until that is below `goal`; more steps where it is not."""
    solved = finite = torch.zeros(z.shape[0], dtype=torch.bool, device=z.device)
    used, count = torch.zeros(z.shape[0], dtype=torch.int64, device=z.device), ROUND
    ready: Prepared | None = None
    accepted = max(goal, NEAR * torch.finfo(z.dtype).eps)
    if not inner.adaptive:  # from a good start Newton alone is enough
        ready = inner.prepare(theta)
        z, residual, move, used = newton(inner, z, theta, ready, goal)
        solved, finite = (residual <= accepted) | (move <= MOVE * tolerance), torch.isfinite(residual)
        if bool((solved | ~finite | _lost(ready.certificate, finite)).all()):
            return Node(z, ready, used, solved, finite)
    for _ in range(ROUNDS):
        loose = goal if inner.adaptive else max(goal, 1e-7)
        done, ready = drive(loose, min(count, max_steps))(z, theta, ready if not inner.adaptive else None)
        used = used + done.steps
        z, residual, move, more = newton(inner, done.z, theta, ready, goal)
        used = used + more
        good = (residual <= accepted) | (move <= MOVE * tolerance)
        stuck = bool((~good & torch.isfinite(residual)).any())
        helped = inner.polish(z, theta, ready, goal, POLISH) if stuck and not inner.adaptive else None
        if helped is not None:
            other, residual_other, move_other, more = newton(inner, helped.z, theta, ready, goal)
            better = residual_other < residual
            move = torch.where(better, move_other, move)
            z, residual = torch.where(better[:, None], other, z), torch.where(better, residual_other, residual)
            used = used + more + helped.steps
        solved = (residual <= accepted) | (move <= MOVE * tolerance)
        finite = done.finite & torch.isfinite(residual)
        hopeless = ~finite | _lost(ready.certificate, finite)
        if bool((solved | hopeless).all()) or int(used.max()) >= max_steps:
            break
        count *= 4
    assert ready is not None
    return Node(z, ready, used, solved, finite)


def _lost(certificate: Certificate, like: Tensor) -> Tensor:
    """(B,) samples without a solution."""
    lost = torch.zeros_like(like)
    for flag in (certificate.empty, certificate.unbounded, None if certificate.convex is None else ~certificate.convex):
        lost = lost if flag is None else lost | flag
    return lost


@torch.no_grad()
def newton(
    inner: Splitting, z: Tensor, theta: Theta, ready: Prepared, goal: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Semismooth Newton steps on z − T(z): per sample the best state, its relative residual, the relative length of
    the last step that was tried (an estimate of the distance to the fixed point), and the number of steps.

    A step is kept where the residual falls. Source: Qi, Sun, *A nonsmooth version of Newton's method*, 1993.
    """
    bare = Prepared(ready.tensors, Certificate())
    gap = inner.step(z, theta, bare) - z
    residual = _relative(gap, z)
    steps, last = torch.zeros(z.shape[0], dtype=torch.int64, device=z.device), torch.full_like(residual, torch.inf)
    solver: LinearSolver = Direct() if z.shape[0] * z.shape[1] ** 3 <= DENSE_WORK else Automatic()
    active = (residual > goal) & torch.isfinite(residual)
    for _ in range(NEWTON):
        rows = active.nonzero().squeeze(1)
        if not rows.numel():
            break
        part, tensors = take(theta, rows), Prepared(take(bare.tensors, rows), Certificate())

        def restrict(index: Tensor, rows: Tensor = rows, z: Tensor = z) -> Linearization:
            at = rows[index]
            return inner.linearize(z[at], take(theta, at), Prepared(take(bare.tensors, at), Certificate()))

        system = System(inner.linearize(z[rows], part, tensors), False, restrict)
        move = solver.solve(system, gap[rows], tolerance=1e-10, max_steps=500).w
        last[rows] = _relative(move, z[rows]).nan_to_num(torch.inf)
        moved = z[rows] + move
        new_gap = inner.step(moved, part, tensors) - moved
        new = _relative(new_gap, moved).nan_to_num(torch.inf)
        better = new_gap.norm(dim=1).nan_to_num(torch.inf) < gap[rows].norm(dim=1)
        at = rows[better]
        steps[rows] += 1
        z, gap, residual = z.clone(), gap.clone(), residual.clone()
        z[at], gap[at], residual[at] = moved[better], new_gap[better], new[better]
        active = torch.zeros_like(active)
        active[at] = residual[at] > goal
    return z, residual, last, steps


def _relative(gap: Tensor, z: Tensor) -> Tensor:
    size: Tensor = gap.norm(dim=1) / z.norm(dim=1).clamp_min(1.0)
    return size


def _averaged(splitting: Selected, method: AveragingMethod, z: Tensor, theta: Theta) -> Tensor:
    """What the averaging iteration reaches on F's own map, whose state is the variable."""
    base = splitting.base(theta)
    return method.run(splitting.inner.runner(base, splitting.inner.prepare(base)), second(splitting, theta), z)


def second(splitting: Selected, theta: Theta) -> Second:
    """The quadratic ω of θ."""
    hessian, linear, *_ = splitting.second(theta)

    def gradient(z: Tensor) -> Tensor:
        if hessian.ndim == 2:
            return z * hessian + linear
        product = z @ hessian[0] if hessian.shape[0] == 1 else (z.unsqueeze(1) @ hessian).squeeze(1)
        return product + linear

    bounds = (hessian.amin(dim=1), hessian.amax(dim=1)) if hessian.ndim == 2 else spectrum(hessian)
    return Second(gradient, *bounds)
