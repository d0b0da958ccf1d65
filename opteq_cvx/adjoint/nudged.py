"""The difference of two nudged solves: what equilibrium propagation does in backward."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opteq_cvx.adjoint.krylov.contract import norms
from opteq_cvx.adjoint.linear_solve import solve as solve_adjoint
from opteq_cvx.adjoint.problem import FixedPoint, take
from opteq_cvx.adjoint.pull import pull
from opteq_cvx.adjoint.record import GradientError, GradientRecord
from opteq_cvx.iterate.contract import Iterate
from opteq_cvx.splitting.contract import Certificate, Prepared, Theta
from opteq_cvx.splitting.saddle import Saddle

CERTAIN = 1e-6  # Jacobians of proxes that differ by less count as one piece (100 eps in float32)
SHARPEST = 20.0  # units of rounding that a solve can be asked for
COARSEST = 30.0  # times √eps: the accuracy of the gradient aimed at, where the layer's own is finer
SHARPENINGS, SHARPER = 3, 1e-5  # how often, and how much at a time, nudged solves are made more accurate
FALLING, TWICE = (0.4, 0.6), 2  # how the departure of the middle falls at half β, time after time, without kinks
STILL = 1e-3  # movements smaller than this share of the nudge are not measured against themselves


@dataclass(frozen=True, slots=True)
class Nudging:
    """The options of `EquilibriumPropagation` that the difference needs."""

    beta: float
    points: int
    richardson: bool
    max_halvings: int


@dataclass(frozen=True, slots=True)
class Pair:
    """The ends of one difference for some samples, the divisor 2β (β with one point), and per sample what is known."""

    plus: Saddle
    minus: Saddle
    divisor: Tensor
    converged: Tensor
    same: Tensor
    middle: Tensor
    moved: Tensor
    noise: Tensor
    steps: Tensor


@dataclass(frozen=True, slots=True)
class Report:
    """Per sample of the whole batch (B,), filled round by round."""

    certified: Tensor
    middle: Tensor
    estimate: Tensor
    steps: Tensor

    @staticmethod
    def blank(z: Tensor) -> "Report":
        """Nothing to do: exact."""
        zeros = z.new_zeros(z.shape[0])
        yes = torch.ones_like(zeros, dtype=torch.bool)
        return Report(yes, zeros, zeros.clone(), torch.zeros_like(zeros, dtype=torch.int64))


@torch.no_grad()
def nudged_gradient(
    problem: FixedPoint,
    rule: Nudging,
    z: Tensor,
    v: Tensor,
    failed: Tensor,
    modulus: Tensor,
    theta: Theta,
    prepared: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    """The gradient in θ of Σ⟨v, z*(θ)⟩ at the fixed point z (B, d), summed over the batch where θ is shared.

    Samples whose active set changes are tried again at half their β, up to `max_halvings` times and as long as rounding
    leaves the difference as accurate as the layer's tolerance. Where the departure of the middle falls with β, as it
    does for smooth programs, the error is of its order squared, and halving ends when that is below the tolerance.
    These samples then keep their difference, or are differentiated implicitly where `problem.linear` says how.
    """
    grads = [torch.zeros_like(t) for t in theta]
    report = Report.blank(z)
    size = norms(v).masked_fill(failed, 0.0)
    rows = (size > 0).nonzero().squeeze(1)
    beta = rule.beta * (1.0 + norms(z)) / torch.where(size > 0, size, 1.0)
    factor, aim, left = 1.0, goal(problem, torch.finfo(z.dtype).eps), list[Tensor]()
    before, falls = torch.full_like(size, torch.inf), torch.zeros_like(size)
    eps = torch.finfo(z.dtype).eps
    small = max(problem.tolerance, COARSEST * eps ** (2 / 3))
    smallest = SHARPEST * eps / aim  # below, rounding alone spoils the difference
    halvings = min(rule.max_halvings, max(0, math.floor(math.log2(max(1.0, rule.beta / smallest)))))
    for halving in range(halvings + 1):
        if not rows.numel():
            break
        part = Part(problem, rule, z[rows], v[rows], modulus if modulus.shape[0] == 1 else modulus[rows],
                    take(theta, rows), take(prepared, rows))  # fmt: skip
        pairs = [part.pair(beta[rows], factor)]
        if rule.richardson:
            pairs.append(part.pair(0.5 * beta[rows], 0.5 * factor))
        certified = pairs[0].same & pairs[0].converged
        usable = torch.stack([p.converged for p in pairs]).all(0)
        departure = 2.0 * pairs[0].middle / pairs[0].moved
        ratio = departure / before[rows]
        falls[rows] = torch.where((ratio > FALLING[0]) & (ratio < FALLING[1]), falls[rows] + 1, 0)
        smooth = pairs[0].converged & (falls[rows] >= TWICE) & (departure.square() <= small)
        before[rows] = departure
        over = certified | smooth | (halving == halvings)
        done = usable if rule.richardson else certified if problem.linear is not None else over & usable
        left.append(rows[over & ~done])
        note(report, rows, pairs, certified, usable)
        accumulate(grads, theta, rows[done], [(c, p, done) for c, p in zip(coefficients(pairs), pairs, strict=True)])
        rows = rows[~(over | done)]
        beta, factor = 0.5 * beta, 0.5 * factor
    rows = torch.cat([*left, rows])
    if rows.numel() and problem.linear is not None:
        implicit(problem, grads, report, rows, (z, v, modulus), theta, prepared)
    report.certified[failed], report.estimate[failed] = False, torch.inf
    error = GradientError(report.middle, report.steps, report.certified, report.estimate, report.certified)
    problem.record.note_error(error, size > 0)
    return tuple(grads)


def coefficients(pairs: Sequence[Pair]) -> tuple[float, ...]:
    """Of the differences at β and, by Richardson, β/2."""
    return (1.0,) if len(pairs) == 1 else (-1.0 / 3.0, 4.0 / 3.0)


@dataclass(frozen=True, slots=True)
class Part:
    """Some samples: state, cotangent, modulus, θ and prepared tensors."""

    problem: FixedPoint
    rule: Nudging
    z: Tensor
    v: Tensor
    modulus: Tensor
    theta: Theta
    prepared: tuple[Tensor, ...]

    def pair(self, beta: Tensor, factor: float) -> Pair:
        """Solve with ±β⟨v, z⟩ as one batch; tolerance follows beta, since the error of the solves is divided by it."""
        splitting, symmetric = self.problem.splitting, self.rule.points == 2
        tilt = beta[:, None] * self.v
        start, theta, tensors, modulus = self.z, self.theta, self.prepared, self.modulus
        if symmetric:
            tilt, start = torch.cat([tilt, -tilt]), torch.cat([start, start])
            theta, tensors = twice(theta), twice(tensors)
            (modulus,) = twice((modulus,))
        known = None if bool(modulus.isnan().any()) else modulus
        nudged, ready = splitting.nudge(theta, Prepared(tensors, Certificate(modulus=known)), tilt)
        found, ready = self.solve(start, nudged, ready, factor, beta * norms(self.v))
        middle = splitting.saddle(self.z, self.theta, Prepared(self.prepared, Certificate()))
        ends = splitting.saddle(found.z, nudged, ready)
        plus, minus = ends.halves() if symmetric else (ends, middle)
        count = self.z.shape[0]
        noise = found.residual * norms(ends.x).clamp_min(1.0)
        if known is not None:
            noise = noise / known.clamp_min(1e-3)
        both = [found.converged & found.finite, noise, found.steps]
        if symmetric:
            both = [
                both[0][:count] & both[0][count:],
                noise[:count] + noise[count:],
                found.steps[:count] + found.steps[count:],
            ]
        slack = max(CERTAIN, 100 * torch.finfo(self.z.dtype).eps)
        return Pair(
            plus, minus, (2.0 if symmetric else 1.0) * beta, both[0], plus.same_piece(minus, self.theta, slack),
            norms(0.5 * (plus.x + minus.x) - middle.x) if symmetric else torch.full_like(beta, torch.inf),
            torch.maximum(norms(plus.x - minus.x), STILL * beta * norms(self.v)), both[1], both[2],
        )  # fmt: skip

    def solve(
        self, start: Tensor, theta: Theta, ready: Prepared, factor: float, size: Tensor
    ) -> tuple[Iterate, Prepared]:
        """The nudged solutions, solved again more accurately until their noise is small beside how far they are apart.

        A sample that the first solve settled is not given up where a later one, at the limit of rounding, is not
        content.
        """
        at, eps = self.problem.at, torch.finfo(start.dtype).eps
        accuracy = max(self.problem.tolerance * min(1.0, self.rule.beta * factor), SHARPEST * eps)
        found, ready = (self.problem.solve if at is None else at(accuracy))(start, theta, ready)
        count, settled = size.shape[0], found.converged & found.finite
        for _ in range(SHARPENINGS):
            x = self.problem.splitting.primal(found.z, theta, ready)
            gap = norms(x[:count] - x[count:]) if self.rule.points == 2 else size
            noise = (found.residual * norms(x).clamp_min(1.0)).reshape(-1, count).sum(0)
            share = goal(self.problem, eps) * torch.maximum(gap, STILL * size) / noise
            share = share[settled.reshape(-1, count).all(0) & (share < 1.0)]
            if at is None or accuracy <= SHARPEST * eps or not share.numel():
                break
            accuracy = max(accuracy * float(share.amin().clamp(SHARPER, 0.5)), SHARPEST * eps)
            again, ready = at(accuracy)(found.z, theta, ready)
            found = replace(again, steps=found.steps + again.steps, converged=settled, finite=again.finite)
            settled = settled & again.finite
        return found, ready


def goal(problem: FixedPoint, eps: float) -> float:
    """The relative accuracy of the gradient that is aimed at."""
    return float(max(problem.tolerance, COARSEST * eps**0.5))


def twice(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Each per-sample tensor two times over, one after the other; shared ones as they are."""
    return tuple(t if t.shape[0] == 1 else torch.cat([t, t]) for t in tensors)


def accumulate(grads: list[Tensor], theta: Theta, rows: Tensor, terms: Sequence[tuple[float, Pair, Tensor]]) -> None:
    """Add Σ coefficient · ∂_θ[ℒ(plus) − ℒ(minus)] / divisor over the samples `rows` of the batch."""
    if not rows.numel():
        return
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in theta]
        part, total = take(leaves, rows), theta[0].new_zeros(())
        for coefficient, pair, chosen in terms:
            picked = chosen.nonzero().squeeze(1)
            gap = pair.plus.take(picked).lagrangian(part) - pair.minus.take(picked).lagrangian(part)
            total = total + coefficient * (gap / pair.divisor[picked]).sum()
    found = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    for i, g in enumerate(found):
        grads[i] = grads[i] + g


def note(report: Report, rows: Tensor, pairs: Sequence[Pair], certified: Tensor, usable: Tensor) -> None:
    """Write what this round found into the report.

    The estimate is the noise of the solves over the distance of the ends; where not certified also the departure of
    their middle from the solution (unknown with one point), or, by Richardson, the change of the difference quotient
    of x from β to β/2.
    """
    first = pairs[0]
    departure = 2.0 * first.middle / first.moved
    if len(pairs) == 2:
        second = pairs[1]
        slopes = [(p.plus.x - p.minus.x) / p.divisor[:, None] for p in pairs]
        floor = second.moved / second.divisor
        estimate = norms(slopes[1] - slopes[0]) / floor + 4.0 * second.noise / second.moved
    else:
        estimate = first.noise / first.moved + torch.where(certified, 0.0, departure)
    report.certified[rows] = certified
    report.middle[rows] = departure
    report.estimate[rows] = torch.where(usable, estimate, torch.inf)
    report.steps[rows] += torch.stack([p.steps for p in pairs]).sum(0)


def implicit(
    problem: FixedPoint,
    grads: list[Tensor],
    report: Report,
    rows: Tensor,
    point: tuple[Tensor, Tensor, Tensor],
    theta: Theta,
    prepared: tuple[Tensor, ...],
) -> None:
    """Differentiate the samples `rows` implicitly and add them to `grads`."""
    z, v, modulus = point
    own = replace(problem, record=GradientRecord())
    some, constants = (z[rows], v[rows], modulus if modulus.shape[0] == 1 else modulus[rows]), take(prepared, rows)
    w = solve_adjoint(own, True, *some, take(theta, rows), constants)
    found = pull(lambda *t: problem.step(some[0], take(t, rows), constants), theta, w)
    for i, g in enumerate(found):
        grads[i] = grads[i] + g
    if own.record.error is not None:
        report.estimate[rows] = own.record.error.estimate
