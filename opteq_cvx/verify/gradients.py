"""The gradient part of `verify`: the layer's adjoint against differences of the exact solver and against
cvxpylayers."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.errors import OpteqError, SolveWarning
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.param import Leaf, Stage
from opteq_cvx.layer import EquilibriumLayer, Factors
from opteq_cvx.verify.answer import Exact
from opteq_cvx.verify.differences import Difference, difference
from opteq_cvx.verify.layers import LayerGradient, Reference
from opteq_cvx.verify.oracle import Oracle
from opteq_cvx.verify.report import GradientRow
from opteq_cvx.verify.tangent import Curve, curve
from opteq_cvx.verify.values import undressed

SOLVE = (1e-10, 1e-8)
"""Tolerances of the forward solve behind a checked gradient: gradients are no better than the point they are
taken at."""

FLOOR = 1e-3
"""A gradient of Σ⟨v, output⟩, ‖v‖ = 1, smaller than this per entry is compared in absolute terms."""

TARGET = 0.1
"""Differences stop shrinking their step at this fraction of the tolerance."""

DISAGREE = "the references disagree; differences decide"


@dataclass(frozen=True, slots=True)
class Task:
    """One sample: parameter values, cotangents v, Σ⟨v, y*⟩, and the layer's gradient of Σ⟨v, y⟩ by name."""

    values: Mapping[str, Array]
    cotangents: tuple[Array, ...]
    value: float
    mine: Mapping[str, Array]


def check_gradients(
    layer: EquilibriumLayer,
    inputs: Sequence[Tensor],
    samples: Mapping[int, Mapping[str, Array]],
    weights: Mapping[str, Array],
    oracle: Oracle,
    exact: Mapping[int, Exact],
    reference: Reference | None,
    tolerance: float,
    generator: np.random.Generator,
) -> tuple[tuple[GradientRow, ...], list[str]]:
    """Rows for each sample and parameter, and notes.

    Args:
        layer: In float64.
        inputs: Its float64 inputs.
        samples: Input values by name for each flat sample index to check.
        weights: Effective weight values by name.
        oracle: Exact answers.
        exact: The exact solution of each sample.
        reference: cvxpylayers, or None.
        tolerance: Bound on the relative error.
        generator: Of cotangents and directions.
    """
    rows: list[GradientRow] = []
    notes: list[str] = []
    if not samples:
        return (), ["no gradients were checked: no sample passed"]
    leaves = {p.name: p for p in layer.program.parameters}
    cotangents = {i: _cotangents(exact[i].outputs, generator) for i in samples}
    gradients = layer_gradients(layer, inputs, weights, cotangents)
    for i, values in samples.items():
        at = inner(cotangents[i], exact[i].outputs)
        task = Task({**weights, **values}, cotangents[i], at, gradients[i])
        second, why = _second(reference, task)
        if why and why not in notes:
            notes.append(why)
        for name in task.values:
            rows.append(_row(i, leaves[name], task, oracle, second, tolerance, generator))
    disagreed = sum(DISAGREE in row.note for row in rows)
    if disagreed:
        notes.append(f"cvxpylayers and differences disagree in {disagreed} rows; differences decide")
    return tuple(rows), notes


def layer_gradients(
    layer: EquilibriumLayer,
    inputs: Sequence[Tensor],
    weights: Mapping[str, Array],
    cotangents: Mapping[int, Sequence[Array]],
) -> dict[int, dict[str, Array]]:
    """∇ Σₖ⟨vₖ, outputₖ⟩ of each sample, in each input's value at that sample and each effective weight."""
    device = inputs[0].device if inputs else torch.device("cpu")
    xs = [x.clone().requires_grad_() for x in inputs]
    effective = {k: torch.from_numpy(np.array(w)).to(device).requires_grad_() for k, w in weights.items()}
    prepared = Factors({k: w.unsqueeze(0) for k, w in effective.items()}, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SolveWarning)
        for tolerance in SOLVE:
            solution = layer.solve(*xs, tolerance=tolerance, prepared=prepared)
            if not bool(solution.status.failed.reshape(-1)[list(cotangents)].any()):
                break
    batch = solution.status.codes.ndim
    ranks = [len(p.shape) for p in layer.program.parameters if p.stage is Stage.INPUT]
    found: dict[int, dict[str, Array]] = {}
    for i, vs in cotangents.items():
        picked = (y.reshape(-1, *y.shape[batch:])[i] for y in undressed(layer.program, solution.values))
        pairs = [(torch.from_numpy(np.array(v)).to(device), y) for v, y in zip(vs, picked, strict=True)]
        total = torch.stack([(v * y).sum() for v, y in pairs]).sum()
        targets = [*xs, *effective.values()]
        grads = torch.autograd.grad(total, targets, retain_graph=True, allow_unused=True)
        full = [torch.zeros_like(t) if g is None else g for t, g in zip(targets, grads, strict=True)]
        summed = [g.reshape(-1, *g.shape[g.ndim - r :]).sum(0) for g, r in zip(full, ranks, strict=False)]
        together = [*summed, *full[len(xs) :]]
        names = [*layer.input_names, *effective]
        found[i] = {k: g.detach().cpu().numpy() for k, g in zip(names, together, strict=True)}
    return found


def inner(vs: Sequence[Array], ys: Sequence[Array]) -> float:
    """Σₖ⟨vₖ, yₖ⟩."""
    return float(sum(np.sum(v * y) for v, y in zip(vs, ys, strict=True)))


def _cotangents(outputs: Sequence[Array], generator: np.random.Generator) -> tuple[Array, ...]:
    draws = [generator.standard_normal(y.shape) for y in outputs]
    norm = float(np.sqrt(sum(float(np.sum(d**2)) for d in draws)))
    return tuple(np.asarray(d / norm) for d in draws)


def _second(reference: Reference | None, task: Task) -> tuple[LayerGradient | None, str]:
    """cvxpylayers' gradient, or None and why."""
    if reference is None:
        return None, ""
    values = {k: torch.from_numpy(np.array(v)) for k, v in task.values.items()}
    try:
        return reference.gradient(values, [torch.from_numpy(v) for v in task.cotangents]), ""
    except OpteqError as error:
        return None, f"without cvxpylayers: {error}"
    except Exception as error:
        return None, f"cvxpylayers failed ({type(error).__name__}: {error})"


@dataclass(frozen=True, slots=True)
class Probe:
    """One direction: the exact slope along it, and the layer's and cvxpylayers' (NaN without it)."""

    exact: Difference
    mine: float
    theirs: float
    scale: float

    @property
    def error(self) -> float:
        """The layer's relative error."""
        return abs(self.mine - self.exact.value) / self.scale

    @property
    def disagreement(self) -> float:
        """cvxpylayers' relative error."""
        return abs(self.theirs - self.exact.value) / self.scale

    @property
    def uncertainty(self) -> float:
        """The relative error of the exact slope itself."""
        return self.exact.error / self.scale


def _row(
    i: int,
    leaf: Leaf,
    task: Task,
    oracle: Oracle,
    second: LayerGradient | None,
    tolerance: float,
    generator: np.random.Generator,
) -> GradientRow:
    """The layer's gradient in one parameter against both references.

    Differences look along a random direction, along the layer's gradient, and, where cvxpylayers has another
    one, along the difference of the two: there they decide between them.
    """
    mine = task.mine[leaf.name]
    theirs = None if second is None else second.gradients[leaf.name].numpy()
    leans = [np.asarray(generator.standard_normal(mine.shape))]
    if mine.size > 1:
        leans.append(mine)
    by_layers = np.nan
    if theirs is not None:
        rest = _tangent(np.asarray(mine - theirs), leaf)
        by_layers = float(np.linalg.norm(rest)) / max(float(np.linalg.norm(theirs)), FLOOR * np.sqrt(mine.size))
        if by_layers > tolerance and mine.size > 1:
            leans.append(rest)
    try:
        probes = [_probe(leaf, lean, task, oracle, theirs, tolerance) for lean in leans]
    except OpteqError as error:
        return _verdict(i, leaf, [], by_layers, tolerance, str(error))
    return _verdict(i, leaf, probes, by_layers, tolerance, "")


def _verdict(i: int, leaf: Leaf, probes: Sequence[Probe], by_layers: float, tolerance: float, note: str) -> GradientRow:
    """Differences decide where they can, else cvxpylayers, and at a kink nobody."""
    kink = next((p for p in probes if p.exact.kink), None)
    sharp = [p for p in probes if p.exact.usable and p.uncertainty <= tolerance and kink is None]
    judged, ok, error, uncertainty = "", True, np.nan, np.nan
    if sharp:
        worst = max(sharp, key=lambda p: p.error - 2.0 * p.uncertainty)
        judged, error, uncertainty = "differences", worst.error, worst.uncertainty
        ok = error <= tolerance + 2.0 * uncertainty
        if any(p.disagreement > tolerance + 2.0 * p.uncertainty for p in sharp):
            note = DISAGREE
    elif kink is None and not np.isnan(by_layers):
        judged, ok = "cvxpylayers", by_layers <= tolerance
    if not ok:
        note = f"the gradient differs from {judged}" + (f"; {note}" if note else "")
    elif not judged:
        note = note or next((p.exact.note for p in probes if p.exact.note), "no reference is accurate here")
    kind = "input" if leaf.stage is Stage.INPUT else "weight"
    errors = (float(error), float(uncertainty), float(by_layers))
    return GradientRow(i, leaf.name, kind, *errors, judged, bool(ok), note)


def _probe(leaf: Leaf, lean: Array, task: Task, oracle: Oracle, theirs: Array | None, tolerance: float) -> Probe:
    """Slopes along the curve of the attribute set that leans to `lean`, relative to the gradient's
    entries."""
    mine = task.mine[leaf.name]
    path = curve(task.values[leaf.name], leaf.attributes, lean)
    scale = max(float(np.linalg.norm(mine)) / np.sqrt(max(mine.size, 1)), FLOOR)
    exact = _exact_slope(leaf.name, path, task, oracle, TARGET * tolerance * scale)
    if exact.usable:
        scale = max(scale, abs(exact.value))
    other = np.nan if theirs is None else float(np.sum(theirs * path.direction))
    return Probe(exact, float(np.sum(mine * path.direction)), other, scale)


def _tangent(gradient: Array, leaf: Leaf) -> Array:
    """The part of a gradient that an attribute lets matter: symmetric parameters only see its symmetric
    part."""
    if any(leaf.attributes.get(name) for name in ("symmetric", "PSD", "NSD")):
        return np.asarray(0.5 * (gradient + gradient.T))
    if leaf.attributes.get("diag"):
        return gradient * np.eye(gradient.shape[0])
    if leaf.attributes.get("sparsity") is not None:
        mask = np.zeros(gradient.shape, dtype=bool)
        mask[tuple(np.asarray(k) for k in leaf.attributes["sparsity"])] = True
        return np.where(mask, gradient, 0.0)
    return gradient


def _exact_slope(name: str, path: Curve, task: Task, oracle: Oracle, target: float) -> Difference:
    """d/dt Σ⟨v, output(θ(t))⟩ at t = 0, the parameter `name` moving along `path`, by exact solves."""
    if not path.direction.any():
        return Difference(np.nan, np.inf, note="the value may not move: it is on the boundary of its attribute set")

    def phi(t: float) -> float:
        found = oracle.solve({**task.values, name: path.at(t)})
        if not found.status.solved:
            return np.nan
        return inner(task.cotangents, found.outputs)

    size = task.values[name]
    scale = max(1.0, float(np.linalg.norm(size)) / np.sqrt(max(size.size, 1)))
    return difference(phi, task.value, scale=scale, target=target)
