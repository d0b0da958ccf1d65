"""One call of a layer: its data, evaluated and freed of poison, and what it returns."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from torch import Tensor

from opteq_cvx.adjoint.mode import Equilibrated
from opteq_cvx.adjoint.problem import FixedPoint, Solve, mend
from opteq_cvx.adjoint.record import GradientRecord
from opteq_cvx.binding import Bound
from opteq_cvx.engine import Trace, Verdict, forward_solve
from opteq_cvx.errors import InputError, SolveError, SolveWarning, message
from opteq_cvx.ir.program import Output
from opteq_cvx.maps.affine import affine
from opteq_cvx.maps.evaluate import Constants, Environment, Weighted
from opteq_cvx.maps.peek import hidden, known_finite, known_true
from opteq_cvx.options import OnFailure, Options
from opteq_cvx.solution import Solution, Stats, Statuses
from opteq_cvx.splitting.contract import Splitting, Theta
from opteq_cvx.status import Status, code

SELECTED = 1e-3  # the adjoint of a selection is solved to this share of the tolerance: I − J is nearly singular


@dataclass(frozen=True, slots=True)
class Data:
    """Parameter values (1|B, *shape) by name, and what the splitting needs of them.

    Per sample (B,): `finite`, whether inputs and weights are; `bounded`, whether what is computed from them is, too.
    """

    values: Mapping[str, Tensor]
    env: Environment
    theta: Theta
    finite: Tensor
    bounded: Tensor


@dataclass(frozen=True, slots=True)
class Solved:
    """The data, the equilibrium with its gradient, the verdict on each sample, and the problem with its record."""

    data: Data
    eq: Equilibrated
    verdict: Verdict
    problem: FixedPoint


def evaluate(
    splitting: Splitting,
    weights: Mapping[str, Tensor],
    bound: Bound,
    constants: Constants,
    weighted: Weighted | None = None,
) -> Data:
    """The problem data of a call.

    Data that overflow at finite inputs would turn the zero cotangent of their sample into NaN (0 · ∞) and spoil the
    gradient of every shared weight: those samples are flagged, and evaluated at the inputs of another one.
    """
    sound = _all_finite(weights, bound)
    finite = bound.finite if known_true(sound) else bound.finite & sound
    values = {**weights, **bound.values}
    env = Environment(values, bound.dtype, bound.device, constants, weighted)
    theta = splitting.theta(env)
    bounded = torch.ones_like(bound.valid)
    for t, unlimited in zip_longest(theta, splitting.unlimited, fillvalue=False):
        if isinstance(t, Tensor) and t.shape[0] == bound.rows > 1 and not known_finite(t):
            values_ = t.detach().unsqueeze(-1).flatten(1)
            bounded = bounded & (~torch.isnan(values_) if unlimited else torch.isfinite(values_)).all(dim=1)
    if not hidden(bounded) and not bool(bounded.all()):
        values = {name: mend(~bounded, [value])[0] for name, value in values.items()}
        env = Environment(values, bound.dtype, bound.device, constants)
        theta = splitting.theta(env)
    return Data(values, env, theta, finite, bounded)


def _all_finite(weights: Mapping[str, Tensor], bound: Bound) -> Tensor:
    ok = torch.ones((), dtype=torch.bool, device=bound.device)
    for value in weights.values():
        if not known_finite(value):
            ok = ok & torch.isfinite(value.detach()).all()
    return ok


def problem(
    splitting: Splitting,
    options: Options,
    theta: Theta,
    dtype: torch.dtype,
    tolerance: float | None,
    factors: Theta | None,
    trace: Trace | None,
) -> FixedPoint:
    """The fixed-point problem of a call, with what was factored once per weight update where that is known."""
    accuracy = tolerance if tolerance is not None else options.tolerance_for(dtype)

    def solve(tolerance: float, trace: Trace | None = None) -> Solve:
        return forward_solve(
            splitting,
            options.iteration,
            tolerance=tolerance,
            max_steps=options.max_steps,
            trace=trace,
            stage=options.select,
        )

    return FixedPoint(
        splitting=splitting,
        solve=solve(accuracy, trace),
        tolerance=accuracy if options.select is None else SELECTED * accuracy,
        prepared=None if factors is None else splitting.prepare(tuple(t.detach() for t in theta), factors),
        record=GradientRecord(_limit(options, accuracy)),
        at=solve,
    )


def _limit(options: Options, accuracy: float) -> float | None:
    """From which estimate a gradient's error is warned of. A selection's adjoint is long without being wrong, so that
    the estimate is pessimistic there: then only on request."""
    if options.select is not None and options.gradient_tolerance is None:
        return None
    return options.gradient_limit(accuracy)


def start(splitting: Splitting, init: Solution | None, bound: Bound, theta: Theta) -> Tensor:
    """The first state (B, d): the splitting's, or that of an earlier solution.

    Raises:
        InputError: the earlier solution has another number of samples.
    """
    if init is None:
        return splitting.start(bound.rows, theta)
    earlier = init.state.detach().reshape(-1, splitting.dimension)
    if earlier.shape[0] != bound.rows:
        found, expected = f"init has {earlier.shape[0]} samples", f"{bound.rows}, as the inputs"
        fix = "pass the solution of a batch of the same shape, or leave init out"
        raise InputError(message(found, expected, fix))
    return torch.nan_to_num(earlier.to(bound.dtype), nan=0.0, posinf=0.0, neginf=0.0)


def state(solved: Solved) -> Tensor:
    """The state (B, d), where a failed sample may hold anything, without NaN and infinity."""
    eq = solved.eq
    if not solved.problem.record.spoiled:
        return eq.z
    return torch.where(eq.failed[:, None], eq.z.detach().nan_to_num(0.0, 0.0, 0.0), eq.z)


def shown(output: Output, variables: Mapping[str, Tensor], env: Environment) -> Tensor:
    """The value of an output, (1|B, *shape)."""
    value = affine(output.value, variables, env)
    if output.imaginary is not None:
        value = torch.complex(*torch.broadcast_tensors(value, affine(output.imaginary, variables, env)))
    return value.exp() if output.function == "exp" else value


def shaped(x: Tensor, bound: Bound) -> Tensor:
    """(1|B, ...) → (*batch, ...)."""
    return x.expand(bound.rows, *x.shape[1:]).reshape((*bound.batch, *x.shape[1:]))


def settle(x: Tensor, failed: Tensor | None, bound: Bound, on_failure: OnFailure) -> Tensor:
    """(1|B, ...) → (*batch, ...); failed samples (B,) keep their value without gradient, or become NaN; None: none."""
    if failed is None:
        return shaped(x, bound)
    x = x.expand(bound.rows, *x.shape[1:])
    flags = failed.reshape(-1, *(1,) * (x.ndim - 1))
    fallback = torch.full_like(x, torch.nan) if on_failure == "nan" else x.detach()
    return shaped(torch.where(flags, fallback, x), bound)


def bare(values: tuple[Tensor, ...], solved: Solved, bound: Bound) -> Solution:
    """What a plain call takes from a solve without failures: the values; of the rest what costs nothing."""
    eq, codes = solved.eq, solved.verdict.codes
    found = tuple(shaped(v, bound) for v in values)
    return Solution(found, {}, Statuses(codes), Stats(eq.steps, eq.residual), eq.residual, eq.z)


def doubted(solved: Solved, objective: Tensor) -> Solved:
    """`solved`, where no sample with an infinite or undefined objective (1|B,) counts as converged: such a point lies
    outside of the objective's domain, by what residuals allow that are relative to the program's sizes."""
    if known_finite(objective):
        return solved
    codes = solved.verdict.codes
    lost = (codes == code(Status.CONVERGED)) & ~torch.isfinite(objective.detach())
    return replace(solved, verdict=Verdict(torch.where(lost, code(Status.MAX_STEPS), codes)))


def worth(objective: Tensor, codes: Tensor, sign: int) -> Tensor:
    """The objective; +inf where infeasible, −inf where unbounded (the signs swapped for Maximize), as in CVXPY."""
    infinite = torch.full_like(objective, sign * torch.inf)
    objective = torch.where(codes == code(Status.PRIMAL_INFEASIBLE), infinite, objective)
    return torch.where(codes == code(Status.DUAL_INFEASIBLE), -infinite, objective)


def announce(statuses: Statuses, on_failure: OnFailure, stacklevel: int, residual: Tensor | None = None) -> None:
    """One warning per call, or an error, when samples failed; silent inside function transforms.

    Raises:
        SolveError: `on_failure` is "raise"; it names the failed sample with the largest `residual` (*batch).
    """
    if torch._C._functorch.is_functorch_wrapped_tensor(statuses.codes) or statuses.all_converged:
        return
    counts = {s: n for s, n in statuses.counts().items() if s is not Status.CONVERGED}
    worst = max(counts, key=lambda s: counts[s])
    parts = ", ".join(f"{n} {s.name.lower()}" for s, n in counts.items())
    text = f"{sum(counts.values())} of {len(statuses)} samples failed ({parts}): {worst.value}"
    if on_failure == "raise":
        raise SolveError(f"{text}{_worst(statuses, residual)}")
    warnings.warn(text, SolveWarning, stacklevel=stacklevel)


def _worst(statuses: Statuses, residual: Tensor | None) -> str:
    """Words for the failed sample with the largest residual."""
    if residual is None:
        return ""
    failed = statuses.failed.reshape(-1)
    held = torch.where(failed, residual.detach().nan_to_num(torch.inf).reshape(-1), -torch.inf)
    flat = int(held.argmax())
    place = [int(k) for k in torch.unravel_index(torch.tensor(flat), statuses.codes.shape)]
    where = f"sample {place[0] if len(place) == 1 else tuple(place)}" if place else "the only sample"
    return f"; the worst is {where}: {list(statuses)[flat].name.lower()}, residual {float(held[flat]):.1e}"
