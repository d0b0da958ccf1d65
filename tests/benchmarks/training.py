"""Equilibrium networks and an explicit one at equal parameter count, by one recipe: accuracy over seeds.

    python -m tests.benchmarks.training --data DIR [--sets mnist fashion_mnist cifar10] [--seeds 0 1 2] [--epochs 10]

Each model reads pixels, standardized by two numbers, and ends in a linear read-out; its width is the one whose number
of parameters is nearest to that of the single OptEq layer with 100 units. Recipe: AdamW, peak rate 3e-3 (1 in 20 steps
of warm-up, then half a cosine), weight decay 1e-2, batches of 128, gradients clipped at 1, float32, tolerance 1e-3. Of
CIFAR-10, 1,000 training images per class and the whole test; its images here are JPEG-compressed. Finished runs are
kept in results/training.jsonl, so that an interrupted table goes on.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

import opteq_cvx as oc
from opteq_cvx.problem_file import read_problem
from opteq_cvx.train import Classifier, Cosine, Data, TrainOptions, load_data, train
from tests.benchmarks.harness import RESULTS, machine

PROBLEMS = Path(__file__).parents[2] / "problems"
UNITS, TOLERANCE = 100, 1e-3
PER_CLASS = {"cifar10": 1000}
RUNS = RESULTS / "training.jsonl"


class Explicit(nn.Module):
    """Three steps of the layer with weights of their own: u_k = relu(W_k u_{k−1} + Ux + b_k), u_0 = 0."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.injection = nn.Linear(features, hidden)
        self.steps = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(2))
        self.read_out = nn.Linear(hidden, classes)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def standardize(self, x: Tensor) -> None:
        """As `Classifier.standardize`."""
        self.mean.copy_(x.mean())
        self.scale.copy_(x.std())

    @override
    def forward(self, x: Tensor) -> Tensor:
        seen = self.injection((x - self.mean) / self.scale)
        u = torch.relu(seen)
        for step in self.steps:
            u = torch.relu(step(u) + seen)
        logits: Tensor = self.read_out(u)
        return logits


def equilibrium(name: str, **fixed: int) -> Callable[[Data, int], nn.Module]:
    """A classifier around a problem file, by data and width."""
    file = read_problem(PROBLEMS / f"{name}.py")

    def build(data: Data, hidden: int) -> nn.Module:
        sizes = {"inputs": data.features, "hidden": hidden, **fixed}
        if "width" in sizes:
            sizes["width"] = hidden
        layer = oc.compile(*file.declare(**sizes), tolerance=TOLERANCE)
        return Classifier(layer, features=data.features, classes=data.classes)

    return build


MODELS: Mapping[str, Callable[[Data, int], nn.Module]] = {
    "OptEq, one layer": equilibrium("opteq_unit"),
    "OptEq, three layers": equilibrium("deep_opteq", injected=1, width=0),
    "monDEQ": equilibrium("mondeq"),
    "explicit, three layers": lambda data, hidden: Explicit(data.features, data.classes, hidden),
}


def count(model: nn.Module) -> int:
    """Trained numbers."""
    return sum(p.numel() for p in model.parameters())


def width(build: Callable[[Data, int], nn.Module], data: Data, wanted: int) -> int:
    """The number of hidden units whose count is nearest to `wanted`."""
    low, high = 1, 2 * UNITS
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if count(build(data, middle)) < wanted else (low, middle)
    return min((low - 1, low), key=lambda h: abs(count(build(data, h)) - wanted))


@dataclass(frozen=True, slots=True)
class Result:
    """One finished run."""

    data: str
    model: str
    seed: int
    epochs: int
    parameters: int
    hidden: int
    accuracy: float
    train_accuracy: float
    seconds: float


def fit(data: Data, model: str, hidden: int, seed: int, epochs: int) -> Result:
    """Train one model."""
    torch.manual_seed(seed)
    net = MODELS[model](data, hidden)
    net.standardize(data.train.x)  # type: ignore[operator]
    options = TrainOptions(epochs=epochs, batch_size=128, schedule=Cosine(peak=3e-3), seed=seed)
    begin = time.perf_counter()
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = train(net, data, Path(folder), options=options, progress=False)
    spent = time.perf_counter() - begin
    seen = float(run.rows[-1]["train_accuracy"])
    return Result(data.name, model, seed, epochs, count(net), hidden, run.test_accuracy, seen, round(spent, 1))


def known() -> list[Result]:
    """The runs that were finished before."""
    if not RUNS.exists():
        return []
    return [Result(**json.loads(line)) for line in RUNS.read_text().splitlines()]


def missing(options: argparse.Namespace, done: Sequence[Result]) -> Iterator[Result]:
    """Runs that are asked for and not among those done, as they finish."""
    have = {(r.data, r.model, r.seed, r.epochs) for r in done}
    for name in options.sets:
        wanted = [(m, s) for s in options.seeds for m in MODELS if (name, m, s, options.epochs) not in have]
        if not wanted:
            continue
        data = load_data(name, options.data, per_class=PER_CLASS.get(name))
        parameters = count(MODELS["OptEq, one layer"](data, UNITS))
        widths = {m: width(MODELS[m], data, parameters) for m in MODELS}
        for model, seed in wanted:
            yield fit(data, model, widths[model], seed, options.epochs)


def table(results: Sequence[Result]) -> str:
    """Mean and standard deviation of the test accuracy over the seeds."""
    names = (
        "data",
        "model",
        "parameters",
        "units",
        "epochs",
        "test accuracy",
        "training accuracy",
        "seconds, the least",
    )
    lines = [f"| {' | '.join(names)} |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    groups = dict.fromkeys((r.data, r.model, r.epochs) for r in results)
    for data, model, epochs in groups:
        of = [r for r in results if (r.data, r.model, r.epochs) == (data, model, epochs)]
        tests, trains = (np.array([getattr(r, n) for r in of]) * 100 for n in ("accuracy", "train_accuracy"))
        spread = f" ± {tests.std(ddof=1):.2f} ({len(of)} seeds)" if len(of) > 1 else " (one seed)"
        figures = (f"{of[0].parameters:,}", str(of[0].hidden), str(epochs), f"{tests.mean():.2f} %{spread}")
        cells = (data, model, *figures, f"{trains.mean():.2f} %", f"{min(r.seconds for r in of):.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def publish(results: Sequence[Result]) -> None:
    """Write the table and the runs, with the machine."""
    where: dict[str, Any] = machine()
    hardware = f"{where['processor']}, {where['threads']} thread(s) a run; seconds by the clock, with other work beside"
    text = f"{__doc__}\n{hardware}.\n\n{table(results)}\n"
    (RESULTS / "training.md").write_text(text)
    (RESULTS / "training.json").write_text(
        json.dumps({"machine": where, "runs": [asdict(r) for r in results]}, indent=1)
    )


def main() -> None:
    """Do what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["mnist", "fashion_mnist", "cifar10"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    for result in missing(options, known()):
        with RUNS.open("a") as stream:
            stream.write(json.dumps(asdict(result)) + "\n")
        print(result, flush=True)
    results = known()
    publish(results)
    print(table(results))


if __name__ == "__main__":
    main()
