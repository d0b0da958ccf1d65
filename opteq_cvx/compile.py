"""compile and explain: the pipeline, readable on one screen."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import cvxpy as cp
import numpy as np
from typing_extensions import override

from opteq_cvx import html
from opteq_cvx.adjoint import AdjointMode, Implicit
from opteq_cvx.coupling import HSIC
from opteq_cvx.declare import Selecting, Tied
from opteq_cvx.errors import CompileError, CouplingWarning, NotConvexError, message
from opteq_cvx.frontend import Reading, read
from opteq_cvx.frontend.selected import read_selected
from opteq_cvx.ir import latex, printer
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.param import Stage
from opteq_cvx.ir.program import Program
from opteq_cvx.iterate import Halpern, Iteration
from opteq_cvx.iterate.averaging import Anchoring, AveragingMethod, BiGSAM
from opteq_cvx.layer import EquilibriumLayer
from opteq_cvx.options import OnFailure, Options
from opteq_cvx.plan import Plan, make_plan
from opteq_cvx.selection import Path, SecondStage, SelectionMethod
from opteq_cvx.smoothing import Smoothing
from opteq_cvx.splitting.asked import SplittingChoice
from opteq_cvx.splitting.choice import SplittingName
from opteq_cvx.ties.equilibrium import ROUNDING, Inclusion, at

Wanted = cp.Expression | cp.constraints.constraint.Constraint
"""What a layer can return."""


def compile(
    problem: cp.Problem | Sequence[cp.Problem] | Tied | Selecting,
    inputs: Sequence[cp.Parameter] | None = None,
    outputs: Sequence[Wanted] | None = None,
    *,
    tolerance: float | None = None,
    max_steps: int = 10_000,
    iteration: Iteration | None = None,
    adjoint: AdjointMode | None = None,
    on_failure: OnFailure = "best",
    gradient_tolerance: float | None = None,
    smoothing: Smoothing | None = None,
    ties: Mapping[cp.Parameter, cp.Expression] | None = None,
    certify: bool = True,
    gp: bool = False,
    decorrelate: HSIC | None = None,
    select: cp.Minimize | cp.Maximize | None = None,
    selection: SelectionMethod | Halpern | None = None,
    splitting: SplittingName | SplittingChoice | None = None,
) -> EquilibriumLayer:
    """Compile a convex program into an equivalent proximal fixed-point network, a `torch.nn.Module`.

    Args:
        problem: a DCP problem (DPP is not required), several that are tied together, a `Tied` or a `Selecting`.
        inputs: parameters that are data of each call, in the order of the call; `oc.Input`s are found without it.
        outputs: what the layer returns: affine expressions of the variables, constraints of the problem (their
            multipliers, with CVXPY's signs; of a cone of several scalars one row for each cone) or dual variables of
            constraints; default all variables.
        tolerance: bound on the estimated relative distance to the solution; default 1e-6 in float64, 1e-4 in float32.
        max_steps: iterations before a sample is given up (status MAX_STEPS).
        iteration: how the fixed-point map is driven; default plain steps where they are certified to contract fast,
            safeguarded Anderson otherwise.
        adjoint: how gradients are computed; default `Implicit()`.
        on_failure: "best" iterate with zero gradient and one warning, "nan", or "raise".
        gradient_tolerance: warn in backward where a gradient's estimated relative error exceeds it; default a thousand
            times the tolerance.
        smoothing: `Tikhonov(mu)` or `Moreau(mu)` for degenerate programs, with the bias each states; the layer, and
            what `verify` checks it against, are then the smoothed program.
        ties: parameters that have the value of an affine expression of the variables, {z: W.T @ u}: the layer solves
            for the equilibrium, in which every program is minimized at the tied values.
        certify: whether ties that are neither variational nor a monotone inclusion are refused; without it any fixed
            point is taken.
        splitting: "closed-form", "forward-backward", "davis-yin", "douglas-rachford" or "primal-dual" instead of the
            plan's choice, or one with options such as `oc.DouglasRachford(rho=1.0)`; saved with the layer.
        gp: the problem is geometric: the network works with logarithms, inputs, weights and outputs are as declared.
        decorrelate: `HSIC(strength=...)`, a prior over the batch that enters the map as a gradient step, in training
            only. Not convex, not certified: the plan and `stats.coupled` say so, and a CouplingWarning is given.
        select: a second objective: of all solutions the layer returns the one that minimizes it, and its gradient.
            It may hold inputs and weights. Where it leaves ties, the point of least norm is taken.
        selection: how it is found; default `Path()`, for every program. `Halpern()`, `BiGSAM()` and
            `SequentialAveraging()` run on forward–backward maps with a quadratic second objective, and are polished.

    A complex program is solved in real and imaginary parts: parameters are real, complex outputs come as such.

    Returns:
        EquilibriumLayer: call it with one tensor per input, batch axes leading.

    Raises:
        CompileError: the problem is not DCP, holds a parameter that is neither input nor weight, an expression that
            cannot be compiled, or a structure that `splitting` cannot serve; the message quotes the expression and
            says what to write instead.

    Source: Xie et al., *Optimization Induced Equilibrium Networks*, arXiv 2105.13228.
    """
    if isinstance(problem, Selecting):
        select = problem.select if select is None else select
        problem = problem.problem
    options = Options(
        tolerance=tolerance,
        max_steps=max_steps,
        iteration=iteration,
        adjoint=adjoint if adjoint is not None else Implicit(),
        on_failure=on_failure,
        gradient_tolerance=gradient_tolerance,
        certify=certify,
        splitting=splitting,
        coupling=decorrelate,
    )
    if decorrelate is not None:
        text = "the prior couples the samples of a batch: what the layer computes in training is not certified"
        warnings.warn(text, CouplingWarning, stacklevel=2)
    if select is not None:
        reading, stage = choose(problem, select, selection, inputs, outputs, ties)
        if smoothing is not None or gp:
            found, fix = "smoothing= or gp= with select=", "drop it: a selection makes the solution unique"
            raise CompileError(message(found, "select= alone", fix))
        chosen = replace(options, select=stage)
        return EquilibriumLayer.from_program(reading.program, reading.initial, chosen, reading.declaration)
    if selection is not None:
        raise CompileError(message("selection= without select=", "a second objective", "pass select=cp.Minimize(...)"))
    reading = read(*_declared(problem, inputs, outputs, ties), gp=gp)
    if smoothing is not None:
        smoothed, targets = smoothing.apply(reading.program), Targets(reading.declaration.weights)
        return EquilibriumLayer.from_program(smoothed, reading.initial, options, targets)
    layer = EquilibriumLayer.from_program(reading.program, reading.initial, options, reading.declaration)
    if certify and layer.plan.inclusion is not None:
        _certified(layer.plan.inclusion, reading.initial)
    return layer


Reads = tuple[
    cp.Problem | Sequence[cp.Problem],
    Sequence[cp.Parameter] | None,
    Sequence[Any] | None,
    Mapping[cp.Parameter, cp.Expression] | None,
]


def _declared(
    problem: cp.Problem | Sequence[cp.Problem] | Tied,
    inputs: Sequence[cp.Parameter] | None,
    outputs: Sequence[Any] | None,
    ties: Mapping[cp.Parameter, cp.Expression] | None,
) -> Reads:
    """What `read` takes; a `Tied` brings ties and outputs of its own."""
    if not isinstance(problem, Tied):
        return problem, inputs, outputs, ties
    return problem.problems, inputs, problem.outputs if outputs is None else outputs, {**problem.ties, **(ties or {})}


def _certified(found: Inclusion, weights: Mapping[str, Array]) -> None:
    """Refuse ties whose margin is negative at the present weights.

    Raises:
        NotConvexError: the margin is negative; where it depends on inputs it is checked sample by sample instead.
    """
    if found.matrix.stage > Stage.WEIGHT or (found.bounds is not None and found.bounds[0] >= 0.0):
        return
    margin, norm = at(found, weights)
    if margin < -ROUNDING * np.finfo(np.float64).eps * max(norm, 1.0):
        words = f"ties that are not certified: the margin λ_min(sym(P − C)) is {margin:.4g} at the present weights"
        fix = "bound the weights (norm=), or pass certify=False to take any fixed point"
        raise NotConvexError(message(words, "a nonnegative margin", fix))


def choose(
    problem: cp.Problem | Sequence[cp.Problem] | Tied,
    select: cp.Minimize | cp.Maximize,
    selection: SelectionMethod | Halpern | None,
    inputs: Sequence[cp.Parameter] | None,
    outputs: Sequence[Any] | None,
    ties: Mapping[cp.Parameter, cp.Expression] | None,
) -> tuple[Reading, SecondStage]:
    """The reading of a problem with a second objective, and that objective as the layer keeps it.

    Raises:
        CompileError: the method does not fit the second objective, or programs are tied.
    """
    if not isinstance(problem, cp.Problem) or ties:
        fix = "select among the solutions of one problem"
        raise CompileError(message("select= with tied programs", "one problem without ties", fix))
    found = read_selected(problem, select, inputs, outputs)
    method = Anchoring() if isinstance(selection, Halpern) else selection
    if isinstance(selection, Halpern) and not found.isotropic:
        fix = "use BiGSAM(), or leave selection= out"
        raise CompileError(message(f"Halpern() with the second objective {found.text}", "c·‖u − r‖², c > 0", fix))
    if isinstance(method, AveragingMethod) and not found.quadratic:
        said = f"{type(method).__name__} with the second objective {found.text}"
        raise CompileError(message(said, "a quadratic one", "leave selection= out"))
    if isinstance(method, BiGSAM) and not found.strong:
        said = f"BiGSAM() with the second objective {found.text}"
        fix = "add a multiple of cp.sum_squares(u), use SequentialAveraging(), or leave selection= out"
        raise CompileError(message(said, "a strongly convex one", fix))
    stage = SecondStage(
        program=found.program,
        text=found.text,
        summand=found.summand,
        strong=found.strong,
        method=method or Path(),
    )
    return found.reading, stage


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The user's weights of a problem that was changed before it was compiled: what `write_back` writes to."""

    weights: Mapping[str, cp.Parameter]

    def __deepcopy__(self, memo: dict[int, object]) -> "Targets":
        return self


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the compiler makes of a problem: the program it read, the program after each pass, and the plan."""

    program: Program
    stages: tuple[tuple[str, str], ...]
    plan: Plan

    @override
    def __str__(self) -> str:
        parts = [f"-- {name}\n{text.rstrip()}" for name, text in self.stages]
        return "\n\n".join([*parts, str(self.plan)])

    @override
    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        parts = [html.details(name, f"<pre>{escape(text)}</pre>") for name, text in self.stages]
        return html.formula(latex.program(self.program)) + "".join(parts) + self.plan._repr_html_()


def explain(
    problem: cp.Problem | Sequence[cp.Problem] | Tied | Selecting,
    inputs: Sequence[cp.Parameter] | None = None,
    outputs: Sequence[Wanted] | None = None,
    *,
    trace: bool = False,
    ties: Mapping[cp.Parameter, cp.Expression] | None = None,
    certify: bool = True,
    gp: bool = False,
    select: cp.Minimize | cp.Maximize | None = None,
    selection: SelectionMethod | Halpern | None = None,
    splitting: SplittingName | SplittingChoice | None = None,
) -> Explanation:
    """Show the program, and the plan, that `compile` would use, without building a layer.

    With `trace`, the program is shown after each pass. Raises as `compile` does.
    """
    if isinstance(problem, Selecting):
        select = problem.select if select is None else select
        problem = problem.problem
    stage: SecondStage | None = None
    if select is None:
        program = read(*_declared(problem, inputs, outputs, ties), gp=gp).program
    else:
        reading, stage = choose(problem, select, selection, inputs, outputs, ties)
        program = reading.program
    texts: list[tuple[str, str]] = [("read", printer.program(program))]

    def keep(name: str, after: Program) -> None:
        text = printer.program(after)
        if trace and text != texts[-1][1]:
            texts.append((name, text))

    plan = make_plan(program, keep, certify=certify, splitting=splitting, select=stage)
    return Explanation(program, tuple(texts), plan)
