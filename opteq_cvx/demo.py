"""The demonstration: declare, compile, verify, train, verify again. Each claim is measured as it is made."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from typing_extensions import override

from opteq_cvx.compile import compile as compile_problem
from opteq_cvx.compile import explain
from opteq_cvx.extras import require
from opteq_cvx.iterate.contract import Stop
from opteq_cvx.layer import EquilibriumLayer
from opteq_cvx.plot import residual_history, training_curves, verified_errors
from opteq_cvx.problem_file import ProblemFile
from opteq_cvx.train import Classifier, Cosine, Run, TrainOptions, load_data
from opteq_cvx.train import train as train_model
from opteq_cvx.verify import Report, verify

SAMPLES, GRADIENT_SAMPLES = 16, 4
"""Samples whose values are checked, and of those the ones whose gradients are: fifty exact solves each."""
VALUES, GRADIENTS = 1e-6, 1e-5
"""Relative errors that are claimed for equilibria and gradients, against the exact solver, in float64."""
SHOWN = 1e-10
"""Where the drawn convergence ends."""
EVERY = Stop(tolerance=SHOWN, max_steps=1).check_every
ACCURACY = 0.97
OPTIONS = TrainOptions(epochs=30, batch_size=64, schedule=Cosine(peak=3e-3), seed=0)


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence with the figure measured, and whether it holds."""

    text: str
    holds: bool

    @override
    def __str__(self) -> str:
        return f"[{'holds' if self.holds else 'FAILS'}] {self.text}"


def demonstrate(file: ProblemFile, out: Path, *, say: Callable[[str], object]) -> list[Claim]:
    """Run all steps on a problem with one vector input; leave figures and weights in `out`.

    Args:
        file: a problem whose `declare()` has a size named `inputs`.
        out: the folder of results; made if it is missing.
        say: receives the text to show.
    """
    out.mkdir(parents=True, exist_ok=True)
    data = load_data("digits")
    sizes = {"inputs": data.features}
    say(f"{file.summary}\nSource: {file.source}\n\n{explain(*file.declare(**sizes))}\n")

    torch.manual_seed(OPTIONS.seed)
    layer = compile_problem(*file.declare(**sizes))
    generator = torch.Generator().manual_seed(1)
    claims: list[Claim] = []

    def tell(found: list[Claim]) -> None:
        claims.extend(found)
        say("\n".join(map(str, found)))

    say(f"1. {SAMPLES} equilibria of the untrained layer, checked")
    before = _check(layer, file.sample(SAMPLES, generator, **sizes))
    tell(_claims_of(before, "before training"))

    say("\n2. Training on scikit-learn's digits")
    model = Classifier(layer, features=data.features, classes=data.classes)
    model.standardize(data.train.x)
    began = time.perf_counter()
    run = train_model(model, data, out, options=OPTIONS)
    model.cpu()
    seconds = time.perf_counter() - began
    text = f"{run.test_accuracy:.2%} of {len(data.test)} test digits, claimed {ACCURACY:.0%}, in {seconds:.0f} s"
    tell([Claim(text, run.test_accuracy >= ACCURACY)])

    say(f"\n3. {SAMPLES} equilibria of the trained layer, checked at test digits")
    with torch.no_grad():
        inputs = tuple(t.double() for t in model.layer_inputs(data.test.x[:SAMPLES]))
    after = _check(layer, inputs)
    tell(_claims_of(after, "after training"))

    model.save(out)
    _draw(run, layer, inputs, before, after, out / "demo.png")
    say(f"\nFigures and weights are in {out}.")
    return claims


def _check(layer: EquilibriumLayer, inputs: tuple[torch.Tensor, ...]) -> Report:
    """The layer in float64 at its present weights, against the exact solver and reference gradients."""
    values = verify(layer, *inputs, tolerance=VALUES, gradients=False)
    some = range(GRADIENT_SAMPLES)
    gradients = verify(layer, *inputs, tolerance=VALUES, gradient_tolerance=GRADIENTS, samples=some)
    return replace(gradients, samples=values.samples)


def _claims_of(report: Report, when: str) -> list[Claim]:
    """The two claims of one report: every sample, every gradient, and that each gradient could be judged."""
    judged = sum(bool(row.judged) for row in report.gradients)
    value, gradient = report.max_error, report.max_gradient_error
    return [
        Claim(
            f"{len(report.samples)} equilibria {when}: relative error {value:.1e}, claimed {VALUES:.0e}",
            all(row.ok for row in report.samples) and value <= VALUES,
        ),
        Claim(
            f"{judged} gradients {when}: relative error {gradient:.1e}, claimed {GRADIENTS:.0e}",
            all(row.ok for row in report.gradients) and gradient <= GRADIENTS,
        ),
    ]


def _draw(
    run: Run,
    layer: EquilibriumLayer,
    inputs: tuple[torch.Tensor, ...],
    before: Report,
    after: Report,
    path: Path,
) -> None:
    """Accuracy, convergence and errors side by side."""
    figure = require("matplotlib.figure", extra="plot").Figure(figsize=(12.0, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    training_curves(run.rows, "accuracy", left)
    exact = copy.deepcopy(layer).double()
    with torch.no_grad():
        history = exact.solve(*inputs, tolerance=SHOWN, history=True).stats.history
    if history is not None:
        residual_history({layer.plan.name: history.numpy()}, every=EVERY, axes=middle)
    named = {
        "values, untrained": _values(before),
        "values, trained": _values(after),
        "gradients, untrained": _gradients(before),
        "gradients, trained": _gradients(after),
    }
    verified_errors(named, tolerance=VALUES, axes=right)
    figure.savefig(path, dpi=110)


def _values(report: Report) -> list[float]:
    """The error of each sample's outputs."""
    return [row.distance for row in report.samples]


def _gradients(report: Report) -> list[float]:
    """The largest error of each sample's gradients, by the reference that decided; NaN where none did."""
    errors = {row.sample: [math.nan] for row in report.samples}
    for row in report.gradients:
        if row.judged:
            errors[row.sample].append(row.differences if row.judged == "differences" else row.cvxpylayers)
    return [float(np.fmax.reduce(found)) for found in errors.values()]
