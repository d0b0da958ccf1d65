"""The convolutional OptEq layer and an explicit network of three convolutions, at equal parameter count, by one recipe.

    python -m tests.benchmarks.conv_training --data DIR [--set cifar10] [--per-class 1000] [--epochs 8] [--seeds 0]

The explicit network makes three steps of the layer with kernels of their own: u_k = relu(K_k ∗ u_{k−1} + V ∗ x + b);
its number of channels is the one whose count of weights is nearest to that of the layer with 32. Recipe of both: AdamW,
one-cycle schedule with peak rate 1e-2, batches of 64, flips and shifts by a pixel, batch normalization of the outputs,
averages over 8 × 8 windows, a linear read-out, an image and its mirror image averaged in evaluation.
"""

import argparse
import json
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from typing_extensions import override

import opteq_cvx as oc
from opteq_cvx.problem_file import read_problem
from opteq_cvx.train import Classifier, Data, OneCycle, TrainOptions, load_data, train
from tests.benchmarks.harness import RESULTS, machine
from tests.benchmarks.training import PROBLEMS, Result, count, table

CHANNELS, POOL, TOLERANCE = 32, 8, 1e-2


class Explicit(nn.Module):
    """Injection, two convolutions on top of it, normalization, averages, read-out."""

    mean: Tensor
    scale: Tensor

    def __init__(self, data: Data, channels: int) -> None:
        super().__init__()
        assert data.image is not None
        self.image = data.image
        self.injection = nn.Conv2d(data.image[0], channels, 5, stride=2, padding=2)
        self.steps = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm = nn.BatchNorm2d(channels)
        self.read_out = nn.Linear(channels * POOL**2, data.classes)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def standardize(self, x: Tensor) -> None:
        """As `Classifier.standardize`."""
        self.mean.copy_(x.mean())
        self.scale.copy_(x.std())

    @override
    def forward(self, x: Tensor) -> Tensor:
        image = x.reshape(len(x), *self.image)
        if self.training:
            return self.scores(image)
        both = torch.stack([self.scores(image), self.scores(image.flip(-1))])
        return both.log_softmax(dim=-1).exp().mean(dim=0).log()

    def scores(self, image: Tensor) -> Tensor:
        """Of one image each."""
        seen = self.injection((image - self.mean) / self.scale)
        u = torch.relu(seen)
        for step in self.steps:
            u = torch.relu(step(u) + seen)
        logits: Tensor = self.read_out(adaptive_avg_pool2d(self.norm(u), POOL).flatten(1))
        return logits


def layer(data: Data, channels: int) -> nn.Module:
    """The classifier around `problems/conv_opteq.py`."""
    assert data.image is not None
    sizes = {"inputs": data.image[0], "pixels": data.image[1], "channels": channels}
    found = oc.compile(*read_problem(PROBLEMS / "conv_opteq.py").declare(**sizes), tolerance=TOLERANCE)
    options = {"pool": POOL, "normalize": True, "mirror": data.image}
    return Classifier(found, features=data.features, classes=data.classes, **options)  # type: ignore[arg-type]


def fit(name: str, net: nn.Module, channels: int, data: Data, seed: int, epochs: int) -> Result:
    """Train one network."""
    net.standardize(data.train.x)  # type: ignore[operator]
    schedule = OneCycle(peak=1e-2)
    options = TrainOptions(epochs=epochs, schedule=schedule, seed=seed, shift=1, flip=True, image=data.image)
    begin = time.perf_counter()
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = train(net, data, Path(folder), options=options, progress=False)
    spent, seen = round(time.perf_counter() - begin, 1), float(run.rows[-1]["train_accuracy"])
    return Result(data.name, name, seed, epochs, count(net), channels, run.test_accuracy, seen, spent)


def main() -> None:
    """Train both and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", default="cifar10")
    parser.add_argument("--per-class", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(options.set, options.data, per_class=options.per_class)
    wanted = count(layer(data, CHANNELS))
    equal = min(range(1, 2 * CHANNELS), key=lambda c: abs(count(Explicit(data, c)) - wanted))
    results = []
    for seed in options.seeds:
        for name, build, channels in (("explicit convolutions", Explicit, equal), ("OptEq", layer, CHANNELS)):
            torch.manual_seed(seed)
            results.append(fit(name, build(data, channels), channels, data, seed, options.epochs))
            print(results[-1], flush=True)
    where = machine()
    head = f"{where['processor']}, one thread; {options.per_class} images a class of {options.set}; units are channels"
    (RESULTS / "conv_training.md").write_text(f"# conv_training\n\n{head}\n\n{table(results)}\n")
    rows = {"machine": where, "runs": [asdict(r) for r in results]}
    (RESULTS / "conv_training.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
