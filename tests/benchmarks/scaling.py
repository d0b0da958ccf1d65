"""How the time of a layer, forward and backward, grows with its size, the batch and the tolerance.

    python -m tests.benchmarks.scaling [--threads N] [--names opteq_unit portfolio conv_opteq] [--dry]

Layers are problem files with drawn weights, in float64; one number varies at a time, the others stay at a middle value.
Value errors are relative, of two samples against Clarabel (`oc.verify`), and not measured above the sizes it manages.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

import opteq_cvx as oc
from opteq_cvx.problem_file import read_problem
from tests.benchmarks.chart import Panel, draw
from tests.benchmarks.harness import RESULTS, Row, publish, timed

PROBLEMS = Path(__file__).parents[2] / "problems"
TOLERANCES = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)
NOTHING = float("nan")


@dataclass(frozen=True, slots=True)
class Workload:
    """A problem file, what its size is called, the sizes, and the largest that is checked."""

    size: str
    sizes: tuple[int, ...]
    middle: int
    checked: int
    batches: tuple[int, ...]
    batch: int
    also: tuple[str, ...] = ()  # sizes that follow the first
    fixed: Mapping[str, int] | None = None

    def named(self, n: int) -> dict[str, int]:
        """All sizes of the problem."""
        return {self.size: n, **dict.fromkeys(self.also, n), **(self.fixed or {})}


WORKLOADS = {
    "opteq_unit": Workload(
        "hidden", (25, 50, 100, 200, 400, 800), 100, 400, (1, 8, 64, 512, 4096), 128, also=("inputs",)
    ),
    "portfolio": Workload("assets", (25, 50, 100, 200, 400), 100, 400, (1, 8, 64, 512), 32, fixed={"factors": 10}),
    "conv_opteq": Workload("pixels", (8, 16, 32, 64, 128), 32, 16, (1, 4, 16, 64), 8, fixed={"channels": 16}),
}
TOLERANCE = 1e-6


def row(name: str, n: int, batch: int, tolerance: float) -> Row:
    """One point: the time of a call and its gradients, and the error of the values."""
    work = WORKLOADS[name]
    file = read_problem(PROBLEMS / f"{name}.py")
    torch.manual_seed(0)
    layer = oc.compile(*file.declare(**work.named(n)), tolerance=tolerance).double()
    generator = torch.Generator().manual_seed(0)
    data = file.sample(batch, generator, **work.named(n))
    checked = NOTHING
    if n <= work.checked:
        checked = oc.verify(layer, *(t[:2] for t in data), gradients=False, tolerance=tolerance).max_error
    spent = timed(both(layer, data), repeats=9, warm=1, budget_s=3.0)
    with torch.no_grad():
        steps = int(layer.solve(*data).stats.steps.max())
    return Row(name, "opteq_cvx", f"n={n}", batch, "float64", *spent, checked, NOTHING, f"{tolerance:g}, {steps} steps")


def both(layer: oc.EquilibriumLayer, data: tuple[torch.Tensor, ...]) -> Callable[[], object]:
    """A call and the gradients of all weights and inputs."""

    def run() -> object:
        layer.zero_grad()
        leaves = [t.clone().requires_grad_() for t in data]
        total = sum((u.square().sum() for u in layer(*leaves)), torch.zeros((), dtype=torch.float64))
        total.backward()  # type: ignore[no-untyped-call]
        return leaves

    return run


def measure(name: str) -> tuple[list[Row], list[Panel]]:
    """All points of a layer, and its three panels."""
    work, rows, panels = WORKLOADS[name], [], []
    axes: tuple[tuple[str, list[tuple[float, tuple[int, int, float]]]], ...] = (
        (work.size, [(n, (n, work.batch, TOLERANCE)) for n in work.sizes]),
        ("batch", [(b, (work.middle, b, TOLERANCE)) for b in work.batches]),
        ("tolerance", [(t, (work.middle, work.batch, t)) for t in TOLERANCES]),
    )
    for label, points in axes:
        series = {}
        for place, point in points:
            found = row(name, *point)
            rows.append(found)
            series[float(place)] = (found.median_ms, found.low_ms, found.high_ms)
            print(name, label, place, f"{found.median_ms:.3g} ms", flush=True)
        still = {"batch": f"batch {work.batch}", work.size: f"{work.size} {work.middle}", "tolerance": f"{TOLERANCE:g}"}
        rest = ", ".join(text for what, text in still.items() if what != label)
        panels.append(Panel(f"{name}: {rest}", label, {"opteq_cvx": series}))
    return rows, panels


def main() -> None:
    """Measure and publish, with the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--names", nargs="+", default=[*WORKLOADS], choices=[*WORKLOADS])
    parser.add_argument("--dry", action="store_true", help="print the rows, write nothing")
    options, _ = parser.parse_known_args()
    torch.set_num_threads(options.threads)
    found = [measure(name) for name in options.names]
    rows, panels = [r for f in found for r in f[0]], [p for f in found for p in f[1]]
    if options.dry:
        print(*rows, sep="\n")
        return
    publish("scaling", rows)
    draw(panels, RESULTS / "scaling.png")


if __name__ == "__main__":
    main()
