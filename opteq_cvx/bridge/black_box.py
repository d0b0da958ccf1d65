"""BlackBoxLayer: any CVXPY solver as a layer, differentiated by two nudged solves (equilibrium propagation)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from opteq_cvx import call
from opteq_cvx.adjoint.first_order import first_order
from opteq_cvx.adjoint.record import GradientError, GradientRecord
from opteq_cvx.binding import Bound, bind
from opteq_cvx.bridge.lagrangian import Lagrangian
from opteq_cvx.bridge.solver import Answer, Nudgeable, at
from opteq_cvx.errors import InputError, message
from opteq_cvx.frontend.read import check_outputs
from opteq_cvx.frontend.roles import roles
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.param import Stage
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.options import OnFailure
from opteq_cvx.record import note
from opteq_cvx.solution import Solution, Stats, Statuses
from opteq_cvx.status import Status, code
from opteq_cvx.weights import WeightStore

ALIKE = 1e-5
"""The middle of the nudged points may depart from the solution by this share of their distance to be certified."""


class BlackBoxLayer(nn.Module):
    """A CVXPY problem, solved sample by sample by a solver of CVXPY, as a `torch.nn.Module`.

    Called as a compiled layer: one tensor per input, batch axes leading, a tuple of outputs back; `oc.Weight`s are
    trained. The gradient is that of equilibrium propagation, (∂_θℒ(β) − ∂_θℒ(−β)) / 2β with ±β⟨v, outputs⟩ added to
    the objective: exact where the active set does not change, O(β²) elsewhere. β is halved until solution and
    multipliers of the two nudged problems have the unnudged ones in their middle (necessary for one active set).
    First order only. `psd_wrap` is believed, as CVXPY does. Calls change the problem's values: one at a time.

    A parameter that moves a kink, as b in norm1(x − b), has a derivative only through the multiplier of that kink,
    which CVXPY keeps to itself: write such terms with a bound, t with x − b <= t and b − x <= t.
    Source: Scellier & Bengio 2017; extension to constraints through their multipliers.

    Args:
        problem: any problem the solver takes; parameters in variables' bounds excepted.
        inputs: as in `compile`.
        outputs: as in `compile`.
        solver: CVXPY's name of the solver.
        solver_options: keywords for `problem.solve`; None: Clarabel as tight as it solves (1e-12 to 1e-8), others as
            they come. Errors of the solver are divided by β.
        beta: size of the nudge relative to the outputs.
        max_halvings: of β.
        on_failure: as in `compile`.
        gradient_tolerance: as in `compile`; default 1e-3.
    """

    def __init__(
        self,
        problem: cp.Problem,
        inputs: Sequence[cp.Parameter] | None = None,
        outputs: Sequence[cp.Expression] | None = None,
        *,
        solver: str = "CLARABEL",
        solver_options: Mapping[str, Any] | None = None,
        beta: float = 0.1,
        max_halvings: int = 8,
        on_failure: OnFailure = "best",
        gradient_tolerance: float = 1e-3,
    ) -> None:
        super().__init__()
        if not beta > 0 or max_halvings < 0:
            found = f"beta={beta}, max_halvings={max_halvings}"
            raise InputError(message(found, "a positive beta, at least 0 halvings", "leave them out for 0.1 and 8"))
        wanted = check_outputs(problem.variables(), outputs)
        known = roles(problem, inputs, wanted)
        self._inputs = tuple(leaf for leaf in known.leaves if leaf.stage is Stage.INPUT)
        self.weights = WeightStore(known.leaves[len(self._inputs) :], known.initial())
        self.solver = Nudgeable(problem, wanted, known, solver, solver_options)
        self.beta, self.max_halvings = beta, max_halvings
        self.on_failure: OnFailure = on_failure
        self.gradient_tolerance = gradient_tolerance

    @property
    def input_names(self) -> tuple[str, ...]:
        """The positional inputs, in order."""
        return tuple(leaf.name for leaf in self._inputs)

    @override
    def forward(self, *inputs: Tensor, **named: Tensor) -> tuple[Tensor, ...]:
        """The outputs at the solution, each (*batch, *shape)."""
        return self.solve(*inputs, **named).values

    def solve(self, *inputs: Tensor, **named: Tensor) -> Solution:
        """As `EquilibriumLayer.solve`, with the solver's iterations as steps; `state` is empty: there is no warm start.

        Raises:
            InputError, DTypeError: misuse (number, names, shapes, dtypes, devices of the inputs).
            SolveError: with `on_failure="raise"`, when samples failed.
        """
        weights = {name: self.weights.value(name).unsqueeze(0) for name in self.weights.names}
        bound = bind(self._inputs, inputs, named, next(iter(weights.values()), None))
        values = {**bound.values, **weights}
        exact = {name: t.detach().double().cpu().numpy() for name, t in bound.values.items()}
        exact |= {name: self.weights.numpy(name)[None] for name in self.weights.names}
        usable = bound.finite & bound.valid
        answers = self.solver.forward(exact, bound.rows, usable.tolist())
        record = GradientRecord(self.gradient_tolerance)
        tensors = [first_order(t) if t.requires_grad else t for t in values.values()]
        like = torch.zeros((), dtype=bound.dtype, device=bound.device)
        run = Run(self, tuple(values), exact, answers, record, like)
        outputs = propagate(run, bound.rows, *tensors)
        return self._pack(outputs, answers, bound, record)

    def write_back(self) -> None:
        """Put the trained weights into the CVXPY parameters of the problem."""
        for name, parameter in self.solver.parameters.items():
            if name in self.weights:
                parameter.value = self.weights.numpy(name)

    def _pack(
        self, outputs: tuple[Tensor, ...], answers: Sequence[Answer], bound: Bound, record: GradientRecord
    ) -> Solution:
        like = outputs[0]

        def column(rows: Sequence[Any], shape: tuple[int, ...] = ()) -> Tensor:
            return torch.from_numpy(np.array(rows, dtype=np.float64).reshape(bound.rows, *shape)).to(like)

        codes = torch.tensor([code(a.status) for a in answers], dtype=torch.int64, device=like.device)
        codes = torch.where(bound.valid, codes, code(Status.INVALID_INPUT))
        codes = torch.where(bound.finite, codes, code(Status.NON_FINITE_INPUT))
        failed = codes != code(Status.CONVERGED)
        statuses = Statuses(call.shaped(codes, bound))
        steps = torch.tensor([a.steps for a in answers], dtype=torch.int64, device=like.device)
        stats = Stats(call.shaped(steps, bound), call.shaped(column([0.0] * bound.rows), bound), None, None, record)
        call.announce(statuses, self.on_failure, 4)
        note(statuses, stats)
        variables = {
            variable.name(): call.shaped(column([a.variables[i] for a in answers], variable.shape), bound)
            for i, variable in enumerate(self.solver.problem.variables())
        }
        return Solution(
            tuple(call.settle(y, failed, bound, self.on_failure) for y in outputs),
            variables,
            statuses,
            stats,
            call.shaped(call.worth(column([a.objective for a in answers]), codes, self.solver.sign), bound),
            like.new_zeros((*bound.batch, 0)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What backward needs of one call: values by name, float64 and (1|B, *shape), and the answers (B)."""

    layer: BlackBoxLayer
    names: tuple[str, ...]
    exact: Mapping[str, Array]
    answers: Sequence[Answer]
    record: GradientRecord
    like: Tensor


class Propagate(torch.autograd.Function):
    """Parameter values (1|B, *shape) ↦ outputs (B, *shape)."""

    @override
    @staticmethod
    def forward(run: Run, rows: int, *values: Tensor) -> tuple[Tensor, ...]:
        columns = (
            np.array([a.outputs[k] for a in run.answers], dtype=np.float64).reshape(rows, *y.shape)
            for k, y in enumerate(run.layer.solver.outputs)
        )
        return tuple(torch.from_numpy(y).to(run.like) for y in columns)

    @override
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.run = inputs[0]
        ctx.save_for_backward(*inputs[2:])

    @override
    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return None, None, *gradient(ctx.run, ctx.saved_tensors, cotangents)


propagate: Callable[..., tuple[Tensor, ...]] = Propagate.apply


@torch.no_grad()
def gradient(run: Run, values: Sequence[Tensor], cotangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Per sample: nudge by ±β, halve β until certified, add the difference of Lagrangians."""
    layer, rows = run.layer, len(run.answers)
    tilts = [g.detach().double().cpu().numpy() for g in cotangents]
    total = [torch.zeros_like(v, dtype=torch.float64, device="cpu") for v in values]
    certified, estimate = torch.ones(rows, dtype=torch.bool), torch.zeros(rows, dtype=torch.float64)
    middles, steps = torch.zeros(rows, dtype=torch.float64), torch.zeros(rows, dtype=torch.int64)
    asked = torch.zeros(rows, dtype=torch.bool)
    for i, answer in enumerate(run.answers):
        v = [np.asarray(t[i]) for t in tilts]
        size = float(np.sqrt(sum(np.sum(t**2) for t in v)))
        if answer.status is not Status.CONVERGED:
            certified[i], estimate[i] = False, torch.inf
            continue
        if size == 0.0:
            continue
        asked[i] = True
        point = at(run.exact, i)
        reach = float(np.sqrt(sum(np.sum(y**2) for y in answer.outputs)))
        beta = layer.beta * (1.0 + reach) / size
        ends, used, taken = search(layer, answer, point, v, beta)
        steps[i] = taken
        if ends is None:
            certified[i], estimate[i] = False, torch.inf
            continue
        middles[i] = middle(answer, *ends)
        certified[i] = middles[i] <= ALIKE
        estimate[i] = middles[i]
        slopes = difference(layer.solver.lagrangian, run.names, point, ends, v, used)
        for sum_, slope in zip(total, slopes, strict=True):
            sum_[0 if sum_.shape[0] == 1 else i] += slope
    run.record.note_error(GradientError(middles, steps, certified, estimate, certified), asked)
    return tuple(t.to(run.like) for t in total)


def search(
    layer: BlackBoxLayer, answer: Answer, point: Mapping[str, Array], v: Sequence[Array], beta: float
) -> tuple[tuple[Answer, Answer] | None, float, int]:
    """The nudged pair, its β, and the solver's steps: the first that is certified, else the one of smallest departure.

    The departure holds truncation, which falls with β, and the solver's noise, which grows: the smallest is the best.
    """
    best, used, smallest, steps = None, beta, np.inf, 0
    for _ in range(layer.max_halvings + 1):
        found = layer.solver.pair(point, [np.asarray(beta * t) for t in v])
        steps += sum(a.steps for a in found)
        if all(a.status is Status.CONVERGED for a in found):
            departure = middle(answer, *found)
            if departure < smallest:
                best, used, smallest = found, beta, departure
            if departure <= ALIKE:
                break
        beta *= 0.5
    return best, used, steps


def middle(answer: Answer, plus: Answer, minus: Answer) -> float:
    """How far the middle of the nudged points is from the solution, over half their distance; multipliers included."""
    at, above, below = answer.flat, plus.flat, minus.flat
    half = 0.5 * float(np.linalg.norm(above - below))
    return float(np.linalg.norm(0.5 * (above + below) - at)) / half if half > 0 else 0.0


def difference(
    worth: Lagrangian,
    names: Sequence[str],
    point: Mapping[str, Array],
    ends: tuple[Answer, Answer],
    tilts: Sequence[Array],
    beta: float,
) -> list[Tensor]:
    """[∂_θℒ(plus) − ∂_θℒ(minus)] / 2β at one sample, by name."""
    with torch.enable_grad():
        leaves = {name: torch.from_numpy(np.array(point[name]))[None].requires_grad_() for name in names}
        total = torch.zeros((), dtype=torch.float64)
        for end, sign in zip(ends, (1.0, -1.0), strict=True):
            fixed = {
                leaf.name: torch.from_numpy(np.array(value, dtype=np.float64)).reshape(1, *leaf.shape)
                for leaf, value in zip(
                    (*worth.variables, *worth.multipliers), (*end.variables, *end.multipliers), strict=True
                )
            }
            env = Environment({**leaves, **fixed}, torch.float64, "cpu")
            tilted = [sign * beta * torch.from_numpy(np.array(t))[None] for t in tilts]
            total = total + sign * worth(env, tilted).sum() / (2.0 * beta)
    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return [g[0] for g in grads]
