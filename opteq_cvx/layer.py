"""EquilibriumLayer: a compiled program as a `torch.nn.Module`."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from opteq_cvx.adjoint.mode import Equilibrated
from opteq_cvx.adjoint.problem import FixedPoint
from opteq_cvx.adjoint.record import GradientRecord
from opteq_cvx.binding import Bound, bind
from opteq_cvx.engine import Trace, Verdict, forward_solve, judge
from opteq_cvx.errors import InputError, SolveError, SolveWarning, message
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.param import Stage
from opteq_cvx.ir.program import Program
from opteq_cvx.maps.affine import affine
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.options import Options
from opteq_cvx.plan import Plan, make_plan
from opteq_cvx.record import note
from opteq_cvx.solution import Solution, Stats, Statuses
from opteq_cvx.splitting.contract import Theta
from opteq_cvx.splitting.flat import split
from opteq_cvx.splitting.objective import objective
from opteq_cvx.status import Status, code
from opteq_cvx.weights import WeightStore


@dataclass(frozen=True, slots=True)
class Factors:
    """What depends on the weights only: their values, spectra and factorizations. Made by `layer.prepare()`."""

    weights: dict[str, Tensor]
    factors: Theta | None


class EquilibriumLayer(nn.Module):
    """The network whose fixed point is the program's solution.

    Calling it with one tensor per input (batch axes leading, any number, also none) returns a tuple in the order of
    the program's outputs; gradients are those of the solution. `solve` also returns statuses and statistics.
    `forward` writes nothing on the module. Built by `opteq_cvx.compile` or `opteq_cvx.load`.
    """

    _anchor: Tensor

    def __init__(self, plan: Plan, weights: WeightStore, options: Options, declaration: object | None = None) -> None:
        super().__init__()
        self.plan = plan
        self.program = plan.program
        self.weights = weights
        self.options = options
        self.declaration = declaration
        anchor = torch.zeros((), dtype=torch.get_default_dtype())
        self.register_buffer("_anchor", anchor, persistent=False)  # dtype and device where nothing else tells
        self._inputs = tuple(p for p in plan.program.parameters if p.stage is Stage.INPUT)

    @classmethod
    def from_program(
        cls, program: Program, weights: Mapping[str, Array], options: Options, declaration: object | None = None
    ) -> Self:
        """Build the layer of a program with initial weight values; needs no CVXPY."""
        leaves = tuple(p for p in program.parameters if p.stage is Stage.WEIGHT)
        return cls(make_plan(program), WeightStore(leaves, dict(weights)), options, declaration)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The positional inputs, in order."""
        return tuple(leaf.name for leaf in self._inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the returned values, in order."""
        return tuple(o.name for o in self.program.outputs)

    @override
    def forward(
        self,
        *inputs: Tensor,
        tolerance: float | None = None,
        init: Solution | None = None,
        prepared: Factors | None = None,
        **named: Tensor,
    ) -> tuple[Tensor, ...]:
        """The outputs at the solution, each (*batch, *shape)."""
        return self._run(inputs, named, tolerance, init, prepared, full=False).values

    def solve(
        self,
        *inputs: Tensor,
        tolerance: float | None = None,
        init: Solution | None = None,
        prepared: Factors | None = None,
        history: bool = False,
        **named: Tensor,
    ) -> Solution:
        """Solve and return values, variables, statuses, statistics and the objective.

        Args:
            inputs: one tensor per input, (*batch, *shape); one without batch axes is shared by the batch.
            tolerance: overrides the layer's.
            init: start from the state of an earlier solution of the same batch shape.
            prepared: weights and factorizations from `prepare()`, when many calls share them.
            history: also keep the residual of each sample at each check.

        Raises:
            InputError, DTypeError: misuse (number, names, shapes, dtypes, devices of the inputs).
            SolveError: with `on_failure="raise"`, when samples failed.
        """
        return self._run(inputs, named, tolerance, init, prepared, full=True, history=history)

    def prepare(self) -> Factors:
        """Evaluate the weights, and what is factored once per weight update, for many calls at fixed weights."""
        with torch.no_grad():
            weights = self._weight_values()
            like = next(iter(weights.values()), self._anchor)
            zeros = {p.name: like.new_zeros(1, *p.shape) for p in self._inputs}
            env = Environment({**weights, **zeros}, like.dtype, like.device)
            splitting = self.plan.splitting
            factors = splitting.factor(splitting.theta(env)) if self.plan.stage < Stage.INPUT else None
        return Factors(weights, factors)

    def write_back(self) -> None:
        """Put the trained weights into the CVXPY parameters of the problem that was compiled.

        Raises:
            InputError: the layer was loaded from disk, so there is no CVXPY problem to write to.
        """
        targets = getattr(self.declaration, "weights", None)
        if targets is None:
            raise InputError(
                message(
                    "this layer has no CVXPY problem",
                    "a layer made by compile in this process",
                    "compile the problem again",
                )
            )
        for name, parameter in targets.items():
            parameter.value = self.weights.numpy(name)

    def _like(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        """What fixes dtype and device of a call: the weights, else the inputs (None), else the module's own."""
        if weights:
            return next(iter(weights.values()))
        return None if self._inputs else self._anchor

    def _weight_values(self) -> dict[str, Tensor]:
        return {name: self.weights.value(name).unsqueeze(0) for name in self.weights.names}

    def _run(
        self,
        inputs: tuple[Tensor, ...],
        named: Mapping[str, Any],
        tolerance: float | None,
        init: Solution | None,
        prepared: Factors | None,
        *,
        full: bool,
        history: bool = False,
    ) -> Solution:
        weights = prepared.weights if prepared is not None else self._weight_values()
        bound = bind(self._inputs, inputs, named, self._like(weights))
        finite = bound.finite & _all_finite(weights, bound)
        env = Environment({**weights, **bound.values}, bound.dtype, bound.device)
        trace = Trace() if history else None
        with torch.autocast(bound.device.type, enabled=False):
            theta = self.plan.splitting.theta(env)
            problem = self._problem(theta, bound, tolerance, prepared, trace)
            z0 = self._start(init, bound, theta)
            eq = self.options.adjoint.equilibrate(problem, z0, theta, finite & bound.valid)
            u = self.plan.splitting.primal(eq.z, theta, eq.prepared)
            variables = split(u, self.plan.layout)
            values = tuple(affine(o.value, variables, env) for o in self.program.outputs)
            verdict = judge(eq, finite, bound.valid)
            worth = objective(self.program, variables, env) if full else eq.residual
        return self._pack(values, variables, eq, verdict, worth, bound, problem.record, trace)

    def _problem(
        self, theta: Theta, bound: Bound, tolerance: float | None, prepared: Factors | None, trace: Trace | None
    ) -> FixedPoint:
        splitting, options = self.plan.splitting, self.options
        accuracy = tolerance if tolerance is not None else options.tolerance_for(bound.dtype)
        solve = forward_solve(
            splitting, options.iteration, tolerance=accuracy, max_steps=options.max_steps, trace=trace
        )
        ready = None
        if prepared is not None and prepared.factors is not None:
            ready = splitting.prepare(tuple(t.detach() for t in theta), prepared.factors)
        return FixedPoint(splitting=splitting, solve=solve, tolerance=accuracy, prepared=ready)

    def _start(self, init: Solution | None, bound: Bound, theta: Theta) -> Tensor:
        if init is None:
            return self.plan.splitting.start(bound.rows, theta)
        state = init.state.detach().reshape(-1, self.plan.splitting.dimension)
        if state.shape[0] != bound.rows:
            raise InputError(
                message(
                    f"init has {state.shape[0]} samples",
                    f"{bound.rows}, as the inputs",
                    "pass the solution of a batch of the same shape, or leave init out",
                )
            )
        return torch.nan_to_num(state.to(bound.dtype), nan=0.0, posinf=0.0, neginf=0.0)

    def _pack(
        self,
        values: tuple[Tensor, ...],
        variables: dict[str, Tensor],
        eq: Equilibrated,
        verdict: Verdict,
        worth: Tensor,
        bound: Bound,
        gradient: GradientRecord,
        trace: Trace | None,
    ) -> Solution:
        failed = verdict.codes != code(Status.CONVERGED)
        rows = bound.rows

        def shaped(x: Tensor) -> Tensor:
            return x.expand(rows, *x.shape[1:]).reshape((*bound.batch, *x.shape[1:]))

        def settle(x: Tensor) -> Tensor:
            x = x.expand(rows, *x.shape[1:])
            flags = failed.reshape(-1, *(1,) * (x.ndim - 1))
            fallback = torch.full_like(x, torch.nan) if self.options.on_failure == "nan" else x.detach()
            return shaped(torch.where(flags, fallback, x))

        statuses = Statuses(shaped(verdict.codes))
        past = trace.history if trace is not None else None
        stats = Stats(shaped(eq.steps), shaped(eq.residual), shaped(verdict.distance), past, gradient)
        self._announce(statuses)
        note(statuses, stats)
        return Solution(
            tuple(settle(v) for v in values),
            {name: settle(v) for name, v in variables.items()},
            statuses,
            stats,
            shaped(self._worth(worth.expand(rows), verdict.codes)),
            eq.z.reshape((*bound.batch, eq.z.shape[1])),
        )

    def _worth(self, objective: Tensor, codes: Tensor) -> Tensor:
        """The objective; +inf where infeasible, −inf where unbounded (the signs swapped for Maximize), as in CVXPY."""
        infinite = torch.full_like(objective, self.program.sign * torch.inf)
        objective = torch.where(codes == code(Status.PRIMAL_INFEASIBLE), infinite, objective)
        return torch.where(codes == code(Status.DUAL_INFEASIBLE), -infinite, objective)

    def _announce(self, statuses: Statuses) -> None:
        """One warning per call, or an error, when samples failed; silent inside function transforms."""
        if torch._C._functorch.is_functorch_wrapped_tensor(statuses.codes) or statuses.all_converged:
            return
        counts = {s: n for s, n in statuses.counts().items() if s is not Status.CONVERGED}
        worst = max(counts, key=lambda s: counts[s])
        parts = ", ".join(f"{n} {s.name.lower()}" for s, n in counts.items())
        text = f"{sum(counts.values())} of {len(statuses)} samples failed ({parts}): {worst.value}"
        if self.options.on_failure == "raise":
            raise SolveError(text)
        warnings.warn(text, SolveWarning, stacklevel=5)


def _all_finite(weights: Mapping[str, Tensor], bound: Bound) -> Tensor:
    ok = torch.ones((), dtype=torch.bool, device=bound.device)
    for value in weights.values():
        ok = ok & torch.isfinite(value).all()
    return ok
