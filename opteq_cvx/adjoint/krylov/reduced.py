"""Adjoint systems of maps in graph form by their optimality system: one dense factor per sample, then refinement."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System, norms, plausible, relative
from opteq_cvx.adjoint.krylov.gmres import GMRES
from opteq_cvx.splitting.linearization import Linearization, Product
from opteq_cvx.splitting.optimality import GraphLinearization, Pair, Regularized

CHUNK = 2**20  # numbers in the matrices that are factored at a time
ROUNDS = 20
NOISE = 10.0  # units of rounding, relative to the solution, below which no residual falls
STALLED = 0.1  # a sample whose residual falls by less goes to GMRES
RESTART, MORE = 12, 48  # its basis, and its steps in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced(LinearSolver):
    """Factor the system regularized by √eps, relative to its size, and refine against the system itself.

    Each round is a step of the proximal point method: it leads to a solution wherever there is one, with multipliers of
    dependent rows of minimum norm, and as a rule divides the error by 1/√eps; where rows nearly depend on each other it
    is slow, and GMRES goes on with the factor as preconditioner. Cost n²(n/3 + r) per sample, r the active rows; memory
    does not depend on the accuracy. A sample is content when its residual and the error that its last correction
    predicts are below the tolerance.
    Sources: Rockafellar 1976; Vanderbei, *Symmetric quasidefinite matrices* (1995), for the regularization.
    """

    @override
    def solve(self, system: System, v: Tensor, *, tolerance: Tensor | float, max_steps: int) -> Linear:
        assert isinstance(system.jacobian, GraphLinearization)
        rows = v.shape[0]
        count = max(1, CHUNK // max(1, system.jacobian.numbers))
        if rows <= count:
            return solved(system, v, tolerance, max_steps)
        parts = []
        for index in torch.arange(rows, device=v.device).split(count):
            own = tolerance[index] if isinstance(tolerance, Tensor) and tolerance.shape[0] > 1 else tolerance
            parts.append(solved(system.rows(index), v[index], own, max_steps))
        return Linear(
            torch.cat([p.w for p in parts]),
            torch.cat([p.residual for p in parts]),
            torch.cat([p.steps for p in parts]),
            torch.cat([p.converged for p in parts]),
        )


def solved(system: System, v: Tensor, tolerance: Tensor | float, max_steps: int) -> Linear:
    """All samples at once."""
    jacobian = system.jacobian
    assert isinstance(jacobian, GraphLinearization)
    reduced, f, state = jacobian.reduce(v, system.transposed)
    factor = reduced.regularized(torch.finfo(v.dtype).eps ** 0.5)
    size = length(f)
    start = (torch.zeros_like(f[0]), torch.zeros_like(f[1]))
    found = refine(factor, f, Progress(start, f, torch.zeros_like(size, dtype=torch.int64), size == 0), tolerance)
    if not bool(found.done.all()):
        found = refine(factor, f, faster(factor, found, max_steps), tolerance)
    w, size = state(found.point), norms(v)
    gap = norms(v - system.apply(w))
    return Linear(w, relative(gap, size), found.steps, found.done & plausible(w, v))


@dataclass(frozen=True, slots=True)
class Progress:
    """(t̂, ρ), the residual there, the rounds it took and whether it is accurate, both (B,)."""

    point: Pair
    left: Pair
    steps: Tensor
    done: Tensor


def refine(factor: Regularized, f: Pair, begin: Progress, tolerance: Tensor | float) -> Progress:
    """Rounds of refinement for the samples that are not done."""
    eps = torch.finfo(f[0].dtype).eps
    point, left, steps, done = begin.point, begin.left, begin.steps, begin.done
    size, before, live = length(f), length(left), ~begin.done & factor.sound
    for _ in range(ROUNDS):
        if not bool(live.any()):
            break
        move = pick(live, factor.solve(left))
        point = plus(point, move)
        left = factor.system.residual(f, point)
        now, reach = length(left), length(point)
        steps = steps + live
        small = now <= (tolerance * size).maximum(NOISE * eps * reach)
        ahead = length(move) * (now / before).clamp_max(1.0)
        done = done | (live & small & (ahead <= tolerance * reach))
        live = live & ~done & (now < STALLED * before)
        before = now
    return Progress(point, left, steps, done)


def faster(factor: Regularized, begin: Progress, max_steps: int) -> Progress:
    """GMRES on the residual with the regularized factor as preconditioner: a step for each slow direction."""
    reduced, n = factor.system, begin.point[0].shape[1]
    zero = (torch.zeros_like(begin.left[0]), torch.zeros_like(begin.left[1]))

    def less_one(x: Tensor) -> Tensor:
        image = reduced.residual(zero, factor.solve((x[:, :n], x[:, n:])))
        return x + torch.cat(image, dim=1)

    right = pick(~begin.done & factor.sound, begin.left)
    system = System(Products(less_one), False, Products.refuse)
    goal = torch.finfo(right[0].dtype).eps
    found = GMRES(restart=RESTART).solve(
        system, torch.cat(right, dim=1), tolerance=goal, max_steps=min(MORE, max_steps)
    )
    w = torch.where(torch.isfinite(found.w), found.w, 0.0)
    move = factor.solve((w[:, :n], w[:, n:]))
    left = plus(begin.left, reduced.residual(zero, move))
    return Progress(plus(begin.point, move), left, begin.steps + found.steps, begin.done)


class Products(Linearization):
    """x ↦ Jx, all that GMRES needs."""

    def __init__(self, product: Product) -> None:
        self.product = product

    @staticmethod
    def refuse(rows: Tensor) -> Linearization:
        """No parts."""
        raise AssertionError("GMRES takes the whole system")

    @override
    def matvec(self, x: Tensor) -> Tensor:
        return self.product(x)

    @override
    def rmatvec(self, x: Tensor) -> Tensor:
        raise AssertionError("GMRES takes no transposed products")


def plus(a: Pair, b: Pair) -> Pair:
    """a + b."""
    return a[0] + b[0], a[1] + b[1]


def pick(rows: Tensor, pair: Pair) -> Pair:
    """Zero except for the samples `rows` (B,)."""
    return torch.where(rows[:, None], pair[0], 0.0), torch.where(rows[:, None], pair[1], 0.0)


def length(pair: Pair) -> Tensor:
    """The norm of both parts together (B,)."""
    return torch.hypot(norms(pair[0]), norms(pair[1]))
