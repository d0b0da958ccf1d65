"""What became of one program: compiled, solved as a batch, alone or in another order, held against Clarabel."""

import time
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import cvxpy as cp
import numpy as np
import torch

import opteq_cvx as oc
from opteq_cvx.errors import CompileError
from opteq_cvx.frontend import read
from opteq_cvx.ir.frozen import Array
from opteq_cvx.options import Options
from opteq_cvx.solution import Solution
from opteq_cvx.splitting.asked import SplittingChoice
from opteq_cvx.splitting.matrix_free import FactoredForwardBackward
from opteq_cvx.splitting.thin_douglas_rachford import ThinDouglasRachford
from opteq_cvx.status import Status
from tests.fuzz.builder import SAMPLES
from tests.fuzz.doubtful import falls_for_ever, has_feasible_point, has_no_point, has_ray, only_in_the_limit
from tests.fuzz.limits import TimeUpError, alarm
from tests.fuzz.program import Made, make
from tests.fuzz.reference import Reference, distance, in_units, reference, violation
from tests.fuzz.repeat import ALL, POINT, apart, repeatable
from tests.fuzz.slopes import differentiated
from tests.fuzz.source import Source

TOLERANCE = 1e-8  # of the layer
OBJECTIVE = 1e-5  # relative, against Clarabel
FEASIBLE = 1e-5  # relative to the size of the constraint's sides, or, where more, of the way to the feasible set
BETTER = 1e-6  # by which a feasible point beats a reference that is therefore not exact
SAME = 1e-7  # relative distance of points up to which they are one
FAR = 1e5  # size of points at which Clarabel calls optimal what has no minimum
SLOW = 10.0  # seconds of this process for compiling and one batch
CHECKS = 30.0  # seconds of this process for all the rest: generator, reference, repetitions, gradients
MAX_STEPS = 4_000
ACCEPTABLE = {"optimal": Status.CONVERGED, "infeasible": Status.PRIMAL_INFEASIBLE, "unbounded": Status.DUAL_INFEASIBLE}
CONSTRUCTED = {k: ACCEPTABLE[k] for k in ("infeasible", "unbounded")}  # kinds whose status needs no solver
LARGE = 10.0  # objectives from which a disagreement is looked at again, in units of the objective
QUICK = 0.5  # seconds up to which a batch is solved again, as samples or in another order, for most seeds


@dataclass
class Outcome:
    """The class of a program (one of CLASSES), a note, and what the table is made of."""

    verdict: str = "solved"
    note: str = ""
    kind: str = ""
    splitting: str = "-"
    asked: str = ""
    batch: str = ""
    atoms: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    steps: int = 0
    seconds: float = 0.0
    gradient: str = ""
    seed: int = -1
    choices: list[int] = field(default_factory=list)
    text: str = ""


def examine(
    source: Source,
    *,
    wild: bool = False,
    gradients: bool = False,
    repeat: tuple[str, ...] = ALL,
    limit: float = SLOW,
) -> Outcome:
    """Make the source's program and classify it; "slow" from `limit` seconds of this process for solving."""
    out = Outcome()
    with warnings.catch_warnings(), alarm(limit + CHECKS, "all checks"):
        warnings.simplefilter("ignore")
        try:
            made = make(source, wild=wild)
        except Exception as error:
            out.verdict, out.note = "skipped", f"generator: {type(error).__name__}: {error}"[:300]
        else:
            out.kind, out.labels, out.text = made.kind, made.labels, made.text
            try:
                classify(made, out, gradients=gradients, repeat=repeat, limit=limit)
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                out.verdict = "slow" if interrupted(error) else "crashed"
                out.note = f"{type(error).__name__}: {error} [{place.filename.split('/')[-1]}:{place.lineno}]"[:400]
    out.choices = list(source.record)
    return out


def interrupted(error: BaseException | None) -> bool:
    """Whether an error is the limit's, or that of torch whose transforms it has interrupted."""
    if error is None:
        return False
    if isinstance(error, TimeUpError) or "dynamicLayerStack" in str(error):
        return True
    return interrupted(error.__cause__ or error.__context__)


def classify(made: Made, out: Outcome, *, gradients: bool, repeat: tuple[str, ...], limit: float) -> None:
    """Fill the outcome of a program."""
    begin = time.process_time()
    with alarm(limit, "compiling and solving"):
        try:
            layer = compiled(made, out)
        except CompileError as error:
            out.verdict, out.note = "refused", str(error)[:300]
            return
        exactly(made, layer)
        order = [next(i for i, p in enumerate(made.builder.inputs) if p.name() == n) for n in layer.input_names]
        arrays = [torch.tensor(made.builder.values[i]) for i in order]
        solution = layer.solve(*arrays)
    out.seconds, out.steps = time.process_time() - begin, int(solution.stats.steps.max())
    samples = SAMPLES if arrays else 1
    notes = [against_exact(made, solution, i, bool(arrays)) for i in range(samples)]
    afresh = repeat == ALL or out.seconds <= QUICK
    if arrays and afresh and not any(n.startswith("not converged") for n in notes):
        out.batch = "all" if repeat == ALL else repeat[0].split()[0]
        notes += repeatable(made, layer, arrays, solution, repeat)
    wrong = [n for n in notes if n.startswith("wrong")]
    missed = [n for n in notes if n.startswith("not converged")]
    unsure = [n for n in notes if n.startswith("skipped")]
    if wrong:
        out.verdict, out.note = "wrong", "; ".join(wrong)
    elif missed:
        out.verdict, out.note = "not converged", "; ".join(missed)
    elif len(unsure) == samples:
        out.verdict, out.note = "skipped", "; ".join(unsure)
    elif gradients and made.modulus > 0 and arrays and solution.status.all_converged:
        out.gradient = differentiated(made, layer, [a[:1] for a in arrays], order)
        if out.gradient.startswith("wrong"):
            out.verdict, out.note = "wrong", out.gradient


def compiled(made: Made, out: Outcome) -> Any:
    """The layer, by the splitting that was drawn for it where that one fits."""
    options = Options(tolerance=TOLERANCE, max_steps=MAX_STEPS)
    reading = read(made.problem)

    def layer_by(splitting: SplittingChoice | None) -> oc.EquilibriumLayer:  # as oc.compile, without reading again
        chosen = replace(options, splitting=splitting)
        return oc.EquilibriumLayer.from_program(reading.program, reading.initial, chosen, reading.declaration)

    layer = None
    if made.asked is not None:
        try:
            layer = layer_by(made.asked)
            out.asked = repr(made.asked)
        except CompileError:
            pass
    layer = layer_by(None) if layer is None else layer
    chosen = layer.plan.splitting
    out.splitting = layer.plan.name
    if isinstance(chosen, ThinDouglasRachford):
        out.splitting += ", Woodbury"
    if isinstance(chosen, FactoredForwardBackward) and "matrix-free" not in out.splitting:
        out.splitting += ", matrix-free"
    out.atoms = tuple(sorted({t.atom for t in layer.program.terms}))
    return layer.double()


def exactly(made: Made, layer: Any) -> None:
    """Weights to the last digit: a layer is made in torch's default dtype, and `double` keeps what float32 rounded."""
    for weight in made.builder.weights:
        if weight.name() in layer.weights.names:
            layer.weights.set(weight.name(), weight.value)


def against_exact(made: Made, solution: Solution, sample: int, batched: bool) -> str:
    """ "" where one sample agrees with Clarabel, else what is the matter."""
    status = solution.status[sample] if batched else solution.status[()]
    made.builder.at(sample)
    if CONSTRUCTED.get(made.kind) is status:
        return ""
    exact = reference(made.problem, again=batched)
    note = held_against(made, solution, sample, batched, exact)
    worth = float(solution.objective[sample] if batched else solution.objective)
    size = abs(exact.value if exact.status == "optimal" else worth)
    if note.startswith("wrong") and LARGE < size < np.inf:
        other = in_units(made.problem, size)
        if other.status != "error":
            note = held_against(made, solution, sample, batched, other)
    return note


def held_against(made: Made, solution: Solution, sample: int, batched: bool, exact: Reference) -> str:
    """The same, against this answer."""
    status = solution.status[sample] if batched else solution.status[()]
    problem, where = made.problem, f"sample {sample}"
    expected = CONSTRUCTED.get(made.kind, ACCEPTABLE.get(exact.status))
    if expected is None:
        return f"skipped: {where}: Clarabel says {exact.status}"
    unbounded = exact.status == "optimal" and exact.reach > FAR
    if unbounded and status is Status.DUAL_INFEASIBLE:
        return f"skipped: {where}: Clarabel stops at a point of size {exact.reach:.0e} on the way to infinity"
    if status is Status.DUAL_INFEASIBLE and expected is Status.PRIMAL_INFEASIBLE and has_ray(problem):
        return ""  # both hold, and the ray proves one of them
    if status is Status.DUAL_INFEASIBLE and exact.status == "optimal" and falls_for_ever(problem):
        return ""
    if status is Status.PRIMAL_INFEASIBLE and exact.status == "optimal" and only_in_the_limit(problem):
        return ""
    if status is Status.PRIMAL_INFEASIBLE and expected is Status.DUAL_INFEASIBLE and has_no_point(problem):
        return ""  # the point that was drawn lies outside of a domain
    if exact.status == "infeasible" and made.kind not in CONSTRUCTED and has_feasible_point(problem):
        return f"skipped: {where}: Clarabel says infeasible, and there is a feasible point"
    if status is not expected:
        unsolved = (Status.MAX_STEPS, Status.DIVERGED)
        word = "not converged" if status in unsolved else "wrong status"
        residual = float(solution.stats.residual[sample] if batched else solution.stats.residual)
        return f"{word}: {where} is {status.name}, exact {expected.name}, residual {residual:.1e}"
    if status is not Status.CONVERGED:
        return ""
    got = {k: (v[sample] if batched else v).detach().numpy() for k, v in solution.variables.items()}
    note = differences(made, got, float(solution.objective[sample] if batched else solution.objective), exact, where)
    if note.startswith("wrong") and unbounded and max(float(np.abs(v).max(initial=0.0)) for v in got.values()) > FAR:
        return f"skipped: {where}: Clarabel at {exact.reach:.0e}, and we, stop on the way to infinity"
    return note


def differences(made: Made, got: Mapping[str, Array], worth: float, exact: Reference, where: str) -> str:
    """The same of a point and its objective value, for a sample that has an optimum."""
    problem, best, points = made.problem, exact.value, exact.points
    size = max(1.0, abs(best))
    allowed = OBJECTIVE * size
    for variable in problem.variables():
        variable.save_value(got[variable.name()].copy())
    value = float(problem.objective.value)
    broken = max((violation(c) for c in problem.constraints), default=0.0)
    if not np.isfinite(value):  # rounding may leave the domain of the objective: how far is a violation like others
        broken, value = max([broken, *(violation(c) for c in domain(problem))]), worth
    broken = min(broken, distance(problem)) if broken > FEASIBLE else broken
    gap = (value - best) * (1 if isinstance(problem.objective, cp.Minimize) else -1)
    far = max((apart(got[k], points[k]) for k in points), default=0.0)
    for variable in problem.variables():
        variable.save_value(points[variable.name()])
    if not broken <= FEASIBLE:
        return f"wrong: {where} violates a constraint by {broken:.1e}"
    if gap < -BETTER * size and broken <= BETTER and abs(worth - value) <= BETTER * size:
        return f"skipped: {where} is feasible and {-gap / size:.1e} below the exact solver's optimum {best:.6g}"
    if not abs(worth - best) <= allowed:
        return f"wrong objective: {where} reports {worth:.8g}, at its point {value:.8g}, exact {best:.8g}"
    if gap > allowed and far > SAME:  # else the objective is steep there: the point is right, and what is reported
        return f"wrong: {where} is {gap / size:.1e} above the optimum {best:.6g}"
    if made.modulus > 0 and far > max(POINT, np.sqrt(2e-9 * size / made.modulus)):
        away = max((float(np.abs(got[k] - points[k]).max(initial=0.0)) for k in points), default=0.0)
        if broken <= BETTER and 0.25 * made.modulus * away**2 <= -gap:  # the reference has still so far to go
            return f"skipped: {where} is feasible and {-gap / size:.1e} below the exact solver's optimum {best:.6g}"
        return f"wrong point: {where} is {far:.1e} from the exact solution, objective gap {gap / size:.1e}"
    return ""


def domain(problem: cp.Problem) -> list[cp.Constraint]:
    """Where the objective is finite; nothing where an activation does not say so."""
    try:
        return list(problem.objective.expr.domain)
    except NotImplementedError:
        return []
