"""Layers that people train, forward and forward + backward, against every peer that installs, in one run.

    python -m tests.benchmarks.layers [--small] [--threads N] [--batches 1 32 128 512] [--budget SECONDS] [--only WORD]

Each row has the accuracy that its contender reached on four samples: of the values, relative in the maximum norm,
against the exact solver polished on its active set; of the gradient, the derivative along one random direction of all
inputs, against central differences of that solver. A peer that is not installed, cannot take the problem, or raises is
left out with a word; one that is slower than the budget for a batch is not asked for larger ones.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.verify.exact import solve_exact
from tests.benchmarks.harness import Row, publish, table, timed
from tests.benchmarks.layer_peers import Forward, contenders
from tests.benchmarks.layer_workloads import F64, Workload, workloads

SAMPLES = 4
STEP = 1e-4


class Reference:
    """Exact outputs on a few samples and the derivative of a random functional along a random direction."""

    def __init__(self, work: Workload) -> None:
        g = torch.Generator().manual_seed(7)
        self.work = work
        self.values = work.data(SAMPLES, g)
        self.direction = [torch.randn(v.shape, generator=g, dtype=F64) for v in self.values]
        self.outputs = self._solve(self.values)
        self.seed = torch.randn(self.outputs.shape, generator=g, dtype=F64)
        ends = [
            self._solve([v + s * STEP * d for v, d in zip(self.values, self.direction, strict=True)]) for s in (1, -1)
        ]
        self.slope = float(((ends[0] - ends[1]) * self.seed).sum() / (2 * STEP))

    def _solve(self, values: Sequence[Tensor]) -> Tensor:
        problem, parameters, outputs = self.work.declare(1.0)
        rows = []
        for i in range(SAMPLES):
            pairs = zip(parameters, values, strict=True)
            at = {p: (v[i] if v.ndim > len(p.shape) else v).numpy() for p, v in pairs}
            rows.append(np.ravel(solve_exact(problem, outputs, at).outputs[0]))
        return torch.tensor(np.stack(rows), dtype=F64)

    def errors(self, forward: Forward) -> tuple[float, float]:
        """Of a contender: relative errors of the values and of the directional derivative (NaN without gradients)."""
        leaves = [v.clone().requires_grad_() for v in self.values]
        found = forward(leaves)
        value = float((found.detach() - self.outputs).abs().max() / self.outputs.abs().max())
        if not found.requires_grad:
            return value, float("nan")
        grads = torch.autograd.grad((found * self.seed).sum(), leaves, allow_unused=True)
        pairs = [(g, d) for g, d in zip(grads, self.direction, strict=True) if g is not None]
        slope = sum(float((g * d).sum()) for g, d in pairs)
        return value, abs(slope - self.slope) / max(abs(self.slope), 1e-12)


def both(forward: Forward, values: Sequence[Tensor]) -> Callable[[], None]:
    """Forward and backward of the sum."""
    leaves = [v.clone().requires_grad_() for v in values]

    def run() -> None:
        torch.autograd.grad(forward(leaves).sum(), leaves, allow_unused=True)

    return run


def only(forward: Forward, values: Sequence[Tensor]) -> Callable[[], None]:
    """Forward without gradients."""

    def run() -> None:
        with torch.no_grad():
            forward(values)

    return run


def measure(work: Workload, batches: Sequence[int], tolerance: float, budget: float) -> list[Row]:
    """All contenders on one workload."""
    reference, rows = Reference(work), list[Row]()
    for who, build in contenders(work, tolerance).items():
        try:
            for row in timings(work, who, build, reference, batches, budget):
                rows.append(row)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as missing:  # whatever a peer raises, panics of compiled code included: not able to
            print(f"{work.name}: {who} left out, {type(missing).__name__}: {str(missing)[:120]}", flush=True)
    return rows


def timings(
    work: Workload,
    who: str,
    build: Callable[[], Forward],
    reference: Reference,
    batches: Sequence[int],
    budget: float,
) -> Iterator[Row]:
    """The rows of one contender; those before an error are kept."""
    begin = time.perf_counter()
    forward = build()
    setup = time.perf_counter() - begin
    value, gradient = reference.errors(forward)
    note = f"set-up {setup:.2g} s"
    for batch in batches:
        values = work.data(batch, torch.Generator().manual_seed(11))
        spent = 0.0
        for kind, make in (("forward", only), ("forward + backward", both)):
            if kind != "forward" and np.isnan(gradient):
                continue
            begin = time.perf_counter()
            times = timed(make(forward, values), repeats=9, warm=1, budget_s=budget / 2)
            spent += time.perf_counter() - begin
            yield Row(f"{work.name}, {kind}", who, work.size, batch, "float64", *times, value, gradient, note)
        if spent > 4 * budget:
            return


def main() -> None:
    """Measure everything and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], help="workloads whose names contain one of these words")
    parser.add_argument("--small", action="store_true", help="small sizes, to see that everything works")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 128, 512])
    parser.add_argument("--tolerance", type=float, default=1e-8)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds for one figure")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers'
        for work in workloads(small=options.small):
            if not any(word in work.name for word in options.only):
                continue
            found = measure(work, options.batches, options.tolerance, options.budget)
            rows += sorted(found, key=lambda r: (r.workload, r.batch, r.median_ms))
            if options.small:
                print(table(found))
            else:
                publish("layers", rows)  # after each workload, so that a run cut short leaves what it found


if __name__ == "__main__":
    main()
