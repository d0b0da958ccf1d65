"""Backward time and peak memory of every adjoint mode and of cvxpylayers, over n and batch, in one run.

    python -m tests.benchmarks.adjoints [--threads N] [--sizes 50 100] [--batches 32 128]

Two workloads: the OptEq unit of DESIGN section 1 (forward–backward, W, U and b trained) and a quadratic program with
inequalities whose right-hand sides are inputs (Douglas–Rachford). The forward solve is not part of the times; the
implicit rows note its own. Errors are relative, in the maximum norm, to the implicit gradient of a solve at 1e-12;
equilibrium propagation notes the share of certified samples and the largest error among them, per sample. Peak memory
is the growth of the process's largest resident set over one forward and backward pass, each in a process of its own;
for the implicit and the unrolled adjoint also at 4 times the iterations, to show which of them grows.
"""

import argparse
import gc
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.adjoint import AdjointMode
from tests.benchmarks import opteq_unit
from tests.benchmarks.harness import Row, publish, timed

TOLERANCE = 1e-6
MODES: dict[str, AdjointMode] = {
    "implicit": oc.Implicit(),
    "truncated, 1 step": oc.Truncated(steps=1),
    "truncated, 10 steps": oc.Truncated(steps=10),
    "unrolled, 100 steps": oc.Unrolled(steps=100),
    "unrolled, 400 steps": oc.Unrolled(steps=400),
    "equilibrium propagation": oc.EquilibriumPropagation(beta=0.03),
}
PEER = "cvxpylayers (DIFFCP)"
Setup = tuple[oc.EquilibriumLayer, list[Tensor]]


def unit(n: int, batch: int, adjoint: AdjointMode, tolerance: float) -> Setup:
    """The trainable OptEq layer."""
    layer = opteq_unit.declare(n, tolerance).double()
    layer.options = replace(layer.options, adjoint=adjoint)
    x = torch.randn(batch, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return layer, [x.requires_grad_()]


def program(n: int) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """min ½xᵀPx − qᵀx, Gx ≤ h, with n variables and n inequalities."""
    rng = np.random.default_rng(0)
    f = rng.normal(size=(n, n))
    q, h, x = cp.Parameter(n, name="q"), cp.Parameter(n, name="h", nonneg=True), cp.Variable(n, name="x")
    root = np.linalg.cholesky(f @ f.T / n + 0.1 * np.eye(n)).T
    cost = 0.5 * cp.sum_squares(root @ x) - q @ x
    return cp.Problem(cp.Minimize(cost), [rng.normal(size=(n, n)) / np.sqrt(n) @ x <= h]), [q, h], [x]


def quadratic(n: int, batch: int, adjoint: AdjointMode, tolerance: float) -> Setup:
    """The quadratic program as a layer."""
    problem, inputs, outputs = program(n)
    layer = oc.compile(problem, inputs=inputs, outputs=outputs, adjoint=adjoint, tolerance=tolerance).double()
    g = torch.Generator().manual_seed(0)
    q = torch.randn(batch, n, generator=g, dtype=torch.float64)
    h = torch.rand(batch, n, generator=g, dtype=torch.float64) + 0.1
    return layer, [q.requires_grad_(), h.requires_grad_()]


WORKLOADS: dict[str, Callable[[int, int, AdjointMode, float], Setup]] = {"OptEq unit": unit, "QP": quadratic}


def gradient(setup: Setup, v: Tensor) -> Callable[[], list[Tensor]]:
    """Backward alone: the graph of one forward pass, differentiated again and again."""
    layer, inputs = setup
    targets = [*inputs, *layer.parameters()]
    (u,) = layer(*inputs)
    return lambda: list(torch.autograd.grad(u, targets, v, retain_graph=True))


def peer(workload: str, n: int, setup: Setup, v: Tensor) -> Callable[[], list[Tensor]]:
    """cvxpylayers' backward on the same data, its derivatives factored anew each time as in training."""
    from cvxpylayers.torch import CvxpyLayer

    layer, inputs = setup
    if workload == "QP":
        problem, parameters, variables = program(n)
        theirs = CvxpyLayer(problem, parameters=parameters, variables=variables)
        (u,) = theirs(*inputs)
        return lambda: list(torch.autograd.grad(u, inputs, v, retain_graph=True))
    w, u_in, b = (layer.weights.value(k).detach().requires_grad_() for k in ("W", "U", "b"))
    factor, c, x = cp.Parameter((n, n)), cp.Parameter(n), cp.Variable(n, nonneg=True)
    theirs = CvxpyLayer(
        cp.Problem(cp.Minimize(0.5 * cp.sum_squares(factor @ x) - c @ x)), parameters=[factor, c], variables=[x]
    )
    root = torch.linalg.cholesky(torch.eye(n, dtype=w.dtype) - w @ w.T).T
    (u,) = theirs(root, inputs[0] @ u_in.T + b)
    return lambda: list(torch.autograd.grad(u, [inputs[0], w, u_in, b], v, retain_graph=True))


def error(got: list[Tensor], want: list[Tensor], count: int) -> float:
    """The worst relative error of the first `count` gradients, in the maximum norm."""
    pairs = zip(got[:count], want[:count], strict=True)
    return max(float((g - t).abs().max() / t.abs().max()) for g, t in pairs)


def forward(setup: Setup) -> float:
    """Milliseconds of the forward solve, with its graph."""
    layer, inputs = setup
    return timed(lambda: layer(*inputs), repeats=5, warm=1, budget_s=10.0)[0]


def certified(setup: Setup, v: Tensor, want: list[Tensor]) -> str:
    """The share of certified samples, and the largest relative error among them in the Euclidean norm."""
    layer, inputs = setup
    solution = layer.solve(*inputs)
    got = torch.autograd.grad(solution.values[0], inputs, v)
    sound = solution.stats.certified
    assert sound is not None
    gaps = [((g - t).norm(dim=1) / t.norm(dim=1))[sound].max() for g, t in zip(got, want, strict=False)]
    return f", certified {float(sound.double().mean()):.1%}, there {float(torch.stack(gaps).max()):.1e}"


def peak(workload: str, n: int, batch: int, who: str, tolerance: float = TOLERANCE) -> float:
    """Megabytes by which one forward and backward pass raises the resident set of a fresh process."""
    task = json.dumps([workload, n, batch, who, tolerance])
    command = [sys.executable, "-m", "tests.benchmarks.adjoints", "--task", task]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(found.stdout.strip().splitlines()[-1])


def task(workload: str, n: int, batch: int, who: str, tolerance: float) -> None:
    """The child of `peak`: once small, to load everything, then the size asked for, from a peak that was reset."""
    torch.set_num_threads(1)
    found = float("nan")
    for size in (2, batch):
        gc.collect()
        begin = reset_peak()
        mode = MODES.get(who, MODES["implicit"])
        setup = WORKLOADS[workload](n, size, mode, tolerance)
        v = torch.ones(size, n, dtype=torch.float64)
        run = peer(workload, n, setup, v) if who == PEER else gradient(setup, v)
        run()
        found = resident("VmHWM") - begin
    print(found)


def reset_peak() -> float:
    """Forget the largest resident set so far (Linux); the present one in megabytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(key: str) -> float:
    """VmRSS, the resident set now, or VmHWM, the largest since `reset_peak`, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def measure(workload: str, n: int, batch: int, who: str, want: list[Tensor], count: int) -> Row:
    """One row: time of backward, accuracy, memory."""
    setup = WORKLOADS[workload](n, batch, MODES.get(who, MODES["implicit"]), TOLERANCE)
    v = torch.ones(batch, n, dtype=torch.float64)
    run = peer(workload, n, setup, v) if who == PEER else gradient(setup, v)
    found = run()
    times = timed(run, repeats=5, warm=1, budget_s=10.0)
    megabytes = peak(workload, n, batch, who)
    note = f"peak {megabytes:.1f} MB"
    if who in ("implicit", "unrolled, 100 steps"):
        longer = (who, 1e-12) if who == "implicit" else ("unrolled, 400 steps", TOLERANCE)
        note += f", at more iterations {peak(workload, n, batch, *longer):.1f} MB"
    if who == "implicit":
        note += f", forward {forward(setup):.1f} ms"
    if who == "equilibrium propagation":
        note += certified(setup, v, want)
    extra = {"peak_mb": megabytes}
    wrong = error(found, want, count)
    return Row(workload, who, f"n={n}", batch, "float64", *times, float("nan"), wrong, note, extra)


def main() -> None:
    """All workloads, sizes, batches and modes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--task", help="internal: one measurement of memory")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.task:
        task(*json.loads(options.task))
        return
    torch.set_num_threads(options.threads)
    rows = []
    for workload in WORKLOADS:
        for n in options.sizes:
            for batch in options.batches:
                exact = WORKLOADS[workload](n, batch, MODES["implicit"], 1e-12)
                want = gradient(exact, torch.ones(batch, n, dtype=torch.float64))()
                count = len(exact[1])  # the inputs: weights are parametrized differently by the peer
                for who in (*MODES, PEER):
                    rows.append(measure(workload, n, batch, who, want, count))
                    print(rows[-1], file=sys.stderr, flush=True)
    publish("adjoints", rows)


if __name__ == "__main__":
    main()
