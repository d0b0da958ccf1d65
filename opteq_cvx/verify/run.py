"""verify: check a compiled layer against the exact solver and reference gradients, sample by sample."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

from opteq_cvx.errors import InputError, SolveWarning, message
from opteq_cvx.frontend.declaration import Declaration
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.param import Stage
from opteq_cvx.ir.program import Program
from opteq_cvx.layer import EquilibriumLayer
from opteq_cvx.solution import Solution
from opteq_cvx.status import Status
from opteq_cvx.verify.answer import Exact, ExactStatus
from opteq_cvx.verify.face import nearest
from opteq_cvx.verify.gradients import check_gradients
from opteq_cvx.verify.layers import Reference, installed
from opteq_cvx.verify.oracle import FromProgram, Oracle, declared
from opteq_cvx.verify.report import GradientRow, Report, SampleRow
from opteq_cvx.verify.tied import TiedOracle, tied_oracle
from opteq_cvx.verify.two_stage import Second, TwoStage, TwoStageFromProgram
from opteq_cvx.verify.values import undressed

LeafT = TypeVar("LeafT", cp.Parameter, cp.Variable)

MARGIN = 0.1
"""The layer solves to MARGIN times the tolerance it is held to: its stopping rule estimates a distance."""

AGREES = {
    Status.NOT_CONVEX: ExactStatus.NOT_CONVEX,
    Status.PRIMAL_INFEASIBLE: ExactStatus.INFEASIBLE,
    Status.DUAL_INFEASIBLE: ExactStatus.UNBOUNDED,
    Status.NON_FINITE_INPUT: ExactStatus.INVALID,
    Status.INVALID_INPUT: ExactStatus.INVALID,
}
"""What the exact solver must say where the layer reports a failure that is the program's own."""


Errors = tuple[float, float, float]
"""Distance, objective gap, violation; NaN where unknown."""

UNKNOWN: Errors = (float("nan"), float("nan"), float("nan"))

FAULTS = ("the outputs are not the exact ones", "the objective differs", "a constraint is violated")
"""What each error above the tolerance means."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of one call: float64 inputs as given, the batch shape, and values per sample."""

    inputs: tuple[Tensor, ...]
    shape: tuple[int, ...]
    names: tuple[str, ...]
    ranks: tuple[int, ...]

    def sample(self, index: int) -> dict[str, Array]:
        """Each input's value at a flat sample index."""
        found = {}
        for name, value, rank in zip(self.names, self.inputs, self.ranks, strict=True):
            event = tuple(value.shape[value.ndim - rank :])
            full = value.detach().expand(*self.shape, *event).reshape(-1, *event)
            found[name] = full[index].cpu().numpy()
        return found


def verify(
    layer: EquilibriumLayer,
    *inputs: Tensor,
    problem: cp.Problem | None = None,
    gradients: bool = True,
    cvxpylayers: bool | None = None,
    tolerance: float = 1e-6,
    gradient_tolerance: float = 1e-5,
    samples: Sequence[int] | None = None,
    seed: int = 0,
) -> Report:
    """Check the layer's values and gradients at these inputs, sample by sample.

    A float64 copy of the layer is run and compared with CVXPY and Clarabel (tolerances 1e-12, polished) at
    each sample's parameter values; its gradients, in effective weights, with central differences of the exact
    solver along a random direction of the parameter's attribute set, and with cvxpylayers. Where those two
    disagree, differences decide. Cost: about ten exact solves per sample and parameter with `gradients`, one
    per sample without.

    Args:
        layer: The compiled layer; it is left as it is.
        inputs: As for a call of the layer.
        problem: A CVXPY problem to compare with, its parameters and variables named as the layer's. By
            default the one that was compiled, or for a loaded layer one rebuilt from the compiled program;
            the report says which.
        gradients: Whether to check gradients.
        cvxpylayers: Whether to use cvxpylayers; by default if it is installed.
        tolerance: Bound on the relative distance, objective gap and constraint violation.
        gradient_tolerance: Bound on the relative error of a gradient.
        samples: Flat indices of the samples to check; by default all.
        seed: Of the random directions and cotangents.

    Raises:
        MissingExtraError: `cvxpylayers=True` and it is not installed.
        InputError: `samples` or `problem` do not fit the layer.
    """
    if cvxpylayers and not installed():
        Reference(layer.program).module()
    double = copy.deepcopy(layer).double()
    if layer.options.coupling is not None:  # in training nothing is certified, so that nothing could be checked
        double.eval()
    double.options = replace(layer.options, on_failure="best")
    wide = tuple(x.detach().to(torch.float64) for x in inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", SolveWarning)
        solution = double.solve(*wide, tolerance=MARGIN * tolerance)
    leaves = [p for p in layer.program.parameters if p.stage is Stage.INPUT]
    batch = Batch(wide, tuple(solution.status.codes.shape), layer.input_names, tuple(len(p.shape) for p in leaves))
    chosen = _chosen(samples, solution)
    weights = {name: double.weights.numpy(name) for name in double.weights.names}
    oracle = tied_oracle(double) if problem is None and layer.plan.source.ties else _oracle(layer, problem)
    notes = [f"the layer ran in float64, to a tolerance of {MARGIN * tolerance:.0e}"]
    rows: list[SampleRow] = []
    exact: dict[int, Exact] = {}
    for i in chosen:
        values = {**weights, **batch.sample(i)}
        exact[i] = oracle.solve(values)
        rows.append(_compare(i, layer.program, solution, exact[i], oracle, values, tolerance))
    margins = [e.margin for e in exact.values() if np.isfinite(e.margin)]
    if layer.options.select is not None and margins:
        notes.append(
            f"the optimal faces are known with a margin of {min(margins):.0e}: below 1e-6 the selection may jump"
        )
    found: tuple[GradientRow, ...] = ()
    if gradients:
        good = [row.sample for row in rows if row.ok and exact[row.sample].status.solved]
        use = layer.options.select is None and (cvxpylayers if cvxpylayers is not None else installed())
        notes.append("gradients are compared in effective weights" + ("" if use else "; cvxpylayers was not used"))
        reference = Reference(layer.program) if use and layer.plan.has_objective else None
        judge = oracle.for_gradients() if isinstance(oracle, TiedOracle) else oracle
        found, more = check_gradients(
            double, wide, {i: batch.sample(i) for i in good}, weights, judge, exact, reference,
            gradient_tolerance, np.random.default_rng(seed),
        )  # fmt: skip
        notes.extend(more)
    if isinstance(oracle, TiedOracle):
        notes.extend(oracle.notes)
    return Report(oracle.source, tolerance, gradient_tolerance, tuple(rows), found, tuple(notes))


def _chosen(samples: Sequence[int] | None, solution: Solution) -> list[int]:
    count = len(solution.status)
    if samples is None:
        return list(range(count))
    for i in samples:
        if not 0 <= i < count:
            raise InputError(message(f"sample {i}", f"flat indices from 0 to {count - 1}", "choose among them"))
    return [int(i) for i in samples]


def _oracle(layer: EquilibriumLayer, problem: cp.Problem | None) -> Oracle:
    """The user's problem where there is one, else one rebuilt from the program."""
    declaration = layer.declaration
    if problem is None:
        stage = layer.options.select
        if not isinstance(declaration, Declaration):
            return FromProgram(layer.program) if stage is None else TwoStageFromProgram(layer.program, stage)
        by_name = dict(zip(layer.input_names, declaration.inputs, strict=True)) | dict(declaration.weights)
        first = declared(layer.program, declaration.problem, by_name, declaration.outputs)
        if stage is None or declaration.select is None:
            return first
        expr = declaration.select.args[0]
        omega = -expr if isinstance(declaration.select, cp.Maximize) else expr
        return TwoStage(first, Second(omega, strong=stage.strong))
    by_name = _by_name(problem.parameters(), [p.name for p in layer.program.parameters], "parameter")
    wanted = [o.name for o in layer.program.outputs]
    variables = _by_name(problem.variables(), wanted, "variable")
    missing = [name for name in wanted if name not in variables]
    if not missing:
        return declared(layer.program, problem, by_name, [variables[name] for name in wanted])
    if isinstance(declaration, Declaration):
        return declared(layer.program, problem, by_name, declaration.outputs)
    found = f"the problem has no variable named {missing[0]!r}"
    raise InputError(message(found, f"variables named {', '.join(wanted)}", "name them as the layer's outputs"))


def _by_name(found: Sequence[LeafT], wanted: Sequence[str], kind: str) -> dict[str, LeafT]:
    named = [leaf for leaf in found if leaf.name() in wanted]
    out = {leaf.name(): leaf for leaf in named}
    if len(out) < len(named):
        raise InputError(message(f"the problem has two {kind}s of one name", "different names", "rename one"))
    return out


def _compare(
    i: int,
    program: Program,
    solution: Solution,
    exact: Exact,
    oracle: Oracle,
    values: Mapping[str, Array],
    tolerance: float,
) -> SampleRow:
    """One sample's row."""
    status = list(solution.status)[i]
    residual = float(solution.stats.residual.reshape(-1)[i])
    bound = solution.stats.distance_bound
    certified = float("nan") if bound is None else float(bound.expand(solution.status.codes.shape).reshape(-1)[i])

    def row(ok: bool, note: str, *, unique: bool | None = None, errors: Errors = UNKNOWN) -> SampleRow:
        name, found = status.name.lower(), exact.status.name.lower()
        return SampleRow(i, name, found, *errors, residual, unique, certified, ok, note)

    if not exact.status.solved:
        agreed = AGREES.get(status) is exact.status
        return row(
            agreed,
            exact.note if agreed else f"the exact solver says: {exact.status.value}. {exact.note}".strip(),
        )
    mine = tuple(_pick(v, solution, i) for v in undressed(program, solution.values))
    distance, unique = _distance(mine, exact, tolerance)
    variables = {name: _pick(v, solution, i) for name, v in solution.variables.items()}
    judgement = oracle.judge(values, variables) if status not in (Status.NON_FINITE_INPUT,) else None
    gap = violation = np.nan
    if judgement is not None:
        gap = abs(judgement.objective - exact.objective) / (1.0 + abs(exact.objective))
        violation = judgement.violation
    errors = (distance, gap, violation)
    if status is not Status.CONVERGED:
        text = f"the layer says: {status.value}; the exact solver found a solution"
        return row(False, text, unique=unique, errors=errors)
    faults = [text for error, text in zip(errors, FAULTS, strict=True) if error > tolerance]
    if np.isnan(distance):
        faults.append("the outputs are not numbers")
    remark = "several solutions: distance to the nearest" if unique is False else ""
    if exact.status is ExactStatus.INACCURATE:
        remark = f"the exact solution is accurate to {exact.residual:.0e} only"
    return row(not faults, "; ".join(faults) or remark, unique=unique, errors=errors)


def _pick(value: Tensor, solution: Solution, i: int) -> Array:
    batch = tuple(solution.status.codes.shape)
    event = tuple(value.shape[len(batch) :])
    return value.detach().reshape(-1, *event)[i].cpu().numpy()


def _distance(mine: Sequence[Array], exact: Exact, tolerance: float) -> tuple[float, bool | None]:
    """Relative distance to the exact solution, or where that is far, to the nearest point of the solution
    set."""

    def relative(outputs: Sequence[Array]) -> float:
        squares = sum(float(np.sum((a - b) ** 2)) for a, b in zip(mine, outputs, strict=True))
        scale = 1.0 + float(np.sqrt(sum(float(np.sum(b**2)) for b in outputs)))
        return float(np.sqrt(squares)) / scale

    plain = relative(exact.outputs)
    if plain <= tolerance or exact.conic is None or not np.isfinite(plain):
        return plain, None
    closest = nearest(exact.conic, mine)
    if closest is None:
        return plain, None
    moved = max(float(np.abs(a - b).max(initial=0.0)) for a, b in zip(closest, exact.outputs, strict=True))
    return min(plain, relative(closest)), not moved > 1e-9
