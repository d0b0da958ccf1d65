"""EquilibriumLayer: a compiled program as a `torch.nn.Module`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from opteq_cvx import call, coupled, html
from opteq_cvx.adjoint.envelope import Worth, envelope
from opteq_cvx.binding import Bound, bind, flatten
from opteq_cvx.certificate import Evidence
from opteq_cvx.chunks import in_chunks
from opteq_cvx.engine import Trace, distance, judge
from opteq_cvx.errors import InputError, UnsupportedError, message
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.param import Stage
from opteq_cvx.ir.program import Program
from opteq_cvx.maps.evaluate import Constants, Environment, Weighted
from opteq_cvx.maps.peek import known_true
from opteq_cvx.options import OnFailure, Options
from opteq_cvx.plan import Plan, make_plan
from opteq_cvx.record import note, recording
from opteq_cvx.solution import Solution, Stats, Statuses
from opteq_cvx.splitting.contract import Theta
from opteq_cvx.splitting.flat import split
from opteq_cvx.splitting.objective import objective
from opteq_cvx.splitting.saddle import Saddle
from opteq_cvx.status import Status, code
from opteq_cvx.weights import WeightStore


@dataclass(frozen=True, slots=True)
class Factors:
    """What depends on the weights only: their values, expressions, spectra, factors. Made by `layer.prepare()`."""

    weights: dict[str, Tensor]
    factors: Theta | None
    values: Weighted | None = None


class EquilibriumLayer(nn.Module):
    """The network whose fixed point is the program's solution.

    Calling it with one tensor per input (batch axes leading, any number, also none) returns a tuple in the order of
    the program's outputs; gradients are those of the solution. `solve` also returns statuses and statistics.
    `forward` writes nothing on the module, so that threads may share it. Inputs have the layer's dtype; solutions of
    well conditioned programs are within a relative 1e-5 in float64, 1e-3 in float32, 1e-1 in bfloat16.
    Built by `opteq_cvx.compile` or `opteq_cvx.load`.
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
        self._constants = Constants()
        self._factored: dict[tuple[torch.dtype, torch.device], Theta] = {}
        self._inputs = tuple(p for p in plan.program.parameters if p.stage is Stage.INPUT)

    @classmethod
    def from_program(
        cls, program: Program, weights: Mapping[str, Array], options: Options, declaration: object | None = None
    ) -> Self:
        """Build the layer of a program with initial weight values; needs no CVXPY."""
        leaves = tuple(p for p in program.parameters if p.stage is Stage.WEIGHT)
        plan = make_plan(program, certify=options.certify, splitting=options.splitting, select=options.select)
        if options.coupling is not None:
            plan = coupled.planned(plan, options.coupling)
        return cls(plan, WeightStore(leaves, dict(weights)), options, declaration)

    @property
    def _coupled(self) -> bool:
        """Whether a prior couples the samples of this call: in training only."""
        return self.options.coupling is not None and self.training

    @property
    def input_names(self) -> tuple[str, ...]:
        """The positional inputs, in order."""
        return tuple(leaf.name for leaf in self._inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the returned values, in order."""
        return self.program.returned

    def _repr_html_(self) -> str:
        """The fixed-point map, what goes in and comes out, and the weights; the plan folded away."""
        rows = [
            (p.stage.name.lower(), p.name, str(list(p.shape)), ", ".join(map(str, p.attributes)))
            for p in self.program.parameters
        ]
        rows += [("output", o, "", "") for o in self.output_names]
        count = sum(p.numel() for p in self.parameters())
        parts = [html.formula(self.plan.latex), html.table(rows, ("role", "name", "shape", "attributes"))]
        plan = html.table(self.plan.lines, caption=f"plan: {self.plan.name}")
        return "".join([*parts, f"<p>{count} trained numbers</p>", html.details("plan", plan)])

    @override
    def forward(
        self,
        *inputs: Tensor,
        tolerance: float | None = None,
        init: Solution | None = None,
        prepared: Factors | None = None,
        throw: bool = False,
        chunk: int | None = None,
        **named: Tensor,
    ) -> tuple[Tensor, ...]:
        """The outputs at the solution, each (*batch, *shape); `throw` as in `solve`.

        With `chunk`, a large batch is solved so many samples at a time, in memory that does not grow with it beyond
        inputs and outputs, backward too: there each chunk is solved once more. Statuses are reported chunk by chunk.
        """
        if chunk is not None:
            return self._in_chunks(inputs, named, tolerance, init, prepared, throw, chunk)
        return self._run(inputs, named, tolerance, init, prepared, throw=throw, full=False).values

    def _in_chunks(
        self,
        inputs: tuple[Tensor, ...],
        named: Mapping[str, Tensor],
        tolerance: float | None,
        init: Solution | None,
        prepared: Factors | None,
        throw: bool,
        chunk: int,
    ) -> tuple[Tensor, ...]:
        """`forward`, `chunk` samples at a time; the weights are evaluated once.

        Raises:
            InputError: with `init`, or where a prior couples the samples of the batch.
        """
        if init is not None or self._coupled:
            found = "chunk= with init=" if init is not None else "chunk= with a prior that couples the batch"
            raise InputError(message(found, "samples that are solved apart", "leave chunk= out"))
        rows = flatten(self._inputs, inputs, named)
        hidden = any(torch._C._functorch.is_functorch_wrapped_tensor(v) for v in rows.values.values())
        if hidden or 0 < rows.count <= chunk or rows.count == 0 < chunk:
            return self._run(inputs, named, tolerance, None, prepared, throw=throw, full=False).values
        ready = prepared if prepared is not None else Factors(self._weight_values(), None)

        def run(part: dict[str, Tensor], again: bool) -> tuple[Tensor, ...]:
            return self._run((), part, tolerance, None, ready, throw=throw, full=False, quiet=again).values

        return in_chunks(run, rows, chunk)

    def solve(
        self,
        *inputs: Tensor,
        tolerance: float | None = None,
        init: Solution | None = None,
        prepared: Factors | None = None,
        history: bool = False,
        throw: bool = False,
        **named: Tensor,
    ) -> Solution:
        """Solve and return values, variables, statuses, statistics and the objective.

        Args:
            inputs: one tensor per input, (*batch, *shape); one without batch axes is shared by the batch.
            tolerance: overrides the layer's.
            init: start from the state of an earlier solution of the same batch shape.
            prepared: weights and factorizations from `prepare()`, when many calls share them.
            history: also keep the residual of each sample at each check.
            throw: raise where samples failed, for this call; as `on_failure="raise"` for all.

        Raises:
            InputError, DTypeError: misuse (number, names, shapes, dtypes, devices of the inputs).
            SolveError: with `throw` or `on_failure="raise"`, when samples failed: how many, and the worst one.
        """
        return self._run(inputs, named, tolerance, init, prepared, throw=throw, full=True, history=history)

    def value(
        self,
        *inputs: Tensor,
        tolerance: float | None = None,
        init: Solution | None = None,
        prepared: Factors | None = None,
        **named: Tensor,
    ) -> Tensor:
        """The optimal value of each sample (*batch), in the user's sense; ±inf where infeasible or unbounded.

        Its gradient is that of the Lagrangian at the solution (envelope theorem): no adjoint solve. Second derivatives
        are those of the adjoint mode: exact with `Implicit`, OrderError with a mode of first order. Failed samples
        have a zero gradient. Arguments as in `solve`.

        Raises:
            UnsupportedError: tied programs without a joint objective.
        """
        if not self.plan.has_objective:
            found, fix = "these ties have no objective", "take `solve` and weigh its values in torch"
            raise UnsupportedError(message(found, "one program, or variational ties", fix))
        bound, weights = self._bind(inputs, named, prepared)
        with torch.autocast(bound.device.type, enabled=False):
            solved = self._solve(bound, weights, tolerance, init, prepared, None)
            data, eq = solved.data, solved.eq
            worth = Worth(self.program, self.plan.splitting, tuple(data.values))
            failed = solved.verdict.codes != code(Status.CONVERGED)
            values, tensors = tuple(data.values.values()), eq.prepared.tensors
            v = envelope(worth, len(values), call.state(solved), failed, *values, *tensors)
        call.announce(Statuses(solved.verdict.codes), self.options.on_failure, 3)
        v = v.masked_fill(failed, torch.nan) if self.options.on_failure == "nan" else v
        return call.shaped(call.worth(v, solved.verdict.codes, self.program.sign), bound)

    def prepare(self) -> Factors:
        """Evaluate the weights, and what is factored once per weight update, for many calls at fixed weights."""
        with torch.no_grad():
            weights = self._weight_values()
            like = next(iter(weights.values()), self._anchor)
            zeros = {p.name: like.new_zeros(1, *p.shape) for p in self._inputs}
            env = Environment({**weights, **zeros}, like.dtype, like.device, self._constants)
            splitting = self.plan.splitting
            theta = splitting.theta(env)
            factors = splitting.factor(theta) if self.plan.stage < Stage.INPUT else None
        return Factors(weights, factors, env.of_weights())

    def _constant_factors(self, theta: Theta) -> Theta | None:
        """What depends on constants only, factored once for each dtype and device; two threads may both do it."""
        hidden = any(torch._C._functorch.is_functorch_wrapped_tensor(t) for t in theta)
        if self.plan.stage > Stage.CONSTANT or hidden or not theta or torch.compiler.is_compiling():
            return None
        key = (theta[0].dtype, theta[0].device)
        if key not in self._factored:
            with torch.inference_mode(False), torch.no_grad():
                self._factored[key] = self.plan.splitting.factor(tuple(t.detach().clone() for t in theta))
        return self._factored[key]

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
        throw: bool,
        full: bool,
        history: bool = False,
        quiet: bool = False,
    ) -> Solution:
        bound, weights = self._bind(inputs, named, prepared)
        trace = Trace() if history else None
        with torch.autocast(bound.device.type, enabled=False):
            solved = self._solve(bound, weights, tolerance, init, prepared, trace)
            data, eq = solved.data, solved.eq
            u = self.plan.splitting.primal(call.state(solved), data.theta, eq.prepared)
            variables = split(u, self.plan.layout)
            values = [call.shown(o, variables, data.env) for o in self.program.outputs]
            worth = self._objective(variables, data.env, eq.residual) if full else eq.residual
            solved = call.doubted(solved, worth) if full and self.plan.has_objective else solved
            chosen = self.options.select is not None or self._coupled  # neither has multipliers of its own
            wanted = (full and self.plan.dual) or self.program.dual_outputs
            saddle = self._saddle(solved) if wanted and not chosen else None
            duals = self._duals(solved, values, saddle)
        on_failure = "raise" if throw else self.options.on_failure
        if not full and not recording() and known_true(solved.verdict.codes == code(Status.CONVERGED)):
            return call.bare(tuple(values), solved, bound)
        solution = self._pack(tuple(values), variables, duals, solved, worth, bound, trace, on_failure, quiet)
        hidden = torch._C._functorch.is_functorch_wrapped_tensor(eq.z)
        if not full or saddle is None or hidden or not self.plan.has_objective:
            return solution
        return replace(solution, evidence=self._evidence(solved, saddle, bound))

    def _objective(self, variables: dict[str, Tensor], env: Environment, like: Tensor) -> Tensor:
        """The objective; NaN where the solution minimizes none."""
        return objective(self.program, variables, env) if self.plan.has_objective else torch.full_like(like, torch.nan)

    def _saddle(self, solved: call.Solved) -> Saddle:
        return self.plan.splitting.saddle(call.state(solved), solved.data.theta, solved.eq.prepared)

    def _evidence(self, solved: call.Solved, saddle: Saddle, bound: Bound) -> Evidence:
        theta = tuple(t.detach() for t in solved.data.theta)
        modulus, codes = solved.eq.prepared.certificate.modulus, solved.verdict.codes
        return Evidence(self.plan, saddle.detach(), theta, solved.data.env, modulus, codes, bound.batch)

    def _duals(self, solved: call.Solved, values: list[Tensor], saddle: Saddle | None) -> list[tuple[Tensor, ...]]:
        """The dual variables of each constraint; those that are outputs are put among the values."""
        wanted = self.program.dual_outputs
        if saddle is None:
            return []
        data, back = solved.data, self.plan.multipliers
        shares = saddle.shares(data.theta)
        found = back(shares, data.env)
        for dual in wanted:  # in the order of positions
            i, k = dual.constraint, dual.part
            values.insert(dual.position, back.joined(i, shares, data.env) if k is None else found[i][k])
        return found

    def _bind(
        self, inputs: tuple[Tensor, ...], named: Mapping[str, Any], prepared: Factors | None
    ) -> tuple[Bound, dict[str, Tensor]]:
        weights = prepared.weights if prepared is not None else self._weight_values()
        return bind(self._inputs, inputs, named, self._like(weights)), weights

    def _solve(
        self,
        bound: Bound,
        weights: dict[str, Tensor],
        tolerance: float | None,
        init: Solution | None,
        prepared: Factors | None,
        trace: Trace | None,
    ) -> call.Solved:
        known = prepared.values if prepared is not None else None
        data = call.evaluate(self.plan.splitting, weights, bound, self._constants, known)
        if self._coupled:
            valid = data.finite & data.bounded & bound.valid
            start = call.start(self.plan.splitting, init, bound, data.theta)
            goal = tolerance if tolerance is not None else self.options.tolerance_for(bound.dtype)
            plan, eq_theta = self.plan, data.theta
            eq, problem = coupled.equilibrate(plan.splitting, plan.layout, self.options, eq_theta, start, valid, goal)
            eq = replace(eq, finite=eq.finite & data.bounded)
            return call.Solved(data, eq, judge(eq, data.finite, bound.valid), problem)
        factors = prepared.factors if prepared is not None else self._constant_factors(data.theta)
        problem = call.problem(self.plan.splitting, self.options, data.theta, bound.dtype, tolerance, factors, trace)
        z0 = call.start(self.plan.splitting, init, bound, data.theta)
        eq = self.options.adjoint.equilibrate(problem, z0, data.theta, data.finite & data.bounded & bound.valid)
        eq = replace(eq, finite=eq.finite & data.bounded)
        return call.Solved(data, eq, judge(eq, data.finite, bound.valid), problem)

    def _pack(
        self,
        values: tuple[Tensor, ...],
        variables: dict[str, Tensor],
        duals: list[tuple[Tensor, ...]],
        solved: call.Solved,
        worth: Tensor,
        bound: Bound,
        trace: Trace | None,
        on_failure: OnFailure,
        quiet: bool,
    ) -> Solution:
        eq, verdict = solved.eq, solved.verdict
        sound = verdict.codes == code(Status.CONVERGED)
        failed = None if known_true(sound) else ~sound
        if failed is not None and on_failure != "nan":  # an unrolled iterate has its own gradient
            failed = failed & ~((verdict.codes == code(Status.MAX_STEPS)) & ~eq.failed)
        statuses = Statuses(call.shaped(verdict.codes, bound))
        past = trace.history if trace is not None else None
        steps, residual, far = (call.shaped(x, bound) for x in (eq.steps, eq.residual, distance(eq)))
        stats = Stats(steps, residual, far, past, solved.problem.record, self._coupled)
        if not quiet:
            call.announce(statuses, on_failure, 6, residual)
            note(statuses, stats)
        return Solution(
            tuple(call.settle(v, failed, bound, on_failure) for v in values),
            {name: call.settle(v, failed, bound, on_failure) for name, v in variables.items()},
            statuses,
            stats,
            call.shaped(call.worth(worth.expand(bound.rows), verdict.codes, self.program.sign), bound),
            eq.z.reshape((*bound.batch, eq.z.shape[1])),
            tuple(self._dual(parts, failed, bound, on_failure) for parts in duals),
        )

    @staticmethod
    def _dual(
        parts: tuple[Tensor, ...], failed: Tensor | None, bound: Bound, on_failure: OnFailure
    ) -> Tensor | tuple[Tensor, ...]:
        settled = tuple(call.settle(p, failed, bound, on_failure) for p in parts)
        return settled[0] if len(settled) == 1 else settled
