"""What the loop costs beside its matrix products: a solve against as many bare `addmm` as it made steps.

    python -m tests.benchmarks.loop [--threads N] [--sizes 512 1024] [--batches 128 512]

The OptEq unit u = relu(WWᵀu + Ux + b), ‖W‖ ≤ 0.95, float32, tolerance 1e-4, weights fixed (`layer.prepare()`). "solve"
is the whole call: checks of the input, Ux + b, the loop, the verdicts. "steps" is the loop alone, as the engine runs it
on prepared data. Value errors are relative, in the maximum norm, against plain steps in float64 to rounding.
"""

import argparse

import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.engine import forward_solve
from tests.benchmarks.harness import Row, publish, raced
from tests.benchmarks.opteq_unit import declare

TOLERANCE = 1e-4
NOTHING = float("nan")


def exact(layer: oc.EquilibriumLayer, x: Tensor) -> Tensor:
    """The equilibrium by plain steps in float64."""
    w, u_in, b = (layer.weights.value(k).detach().double() for k in ("W", "U", "b"))
    c, gram = x.double() @ u_in.T + b, w @ w.T
    u = torch.zeros_like(c)
    for _ in range(1000):
        u = torch.relu(u @ gram + c)
    return u


def measure(n: int, batch: int) -> list[Row]:
    """The solve, its loop, and the products alone, in turns."""
    layer = declare(n, TOLERANCE).float()
    x = torch.randn(batch, n, generator=torch.Generator().manual_seed(0))
    ready = layer.prepare()
    with torch.no_grad():
        solution = layer.solve(x, prepared=ready)
        steps = int(solution.stats.steps.max())
        values = layer(x, prepared=ready)[0]
        error = float((values.double() - exact(layer, x)).abs().max() / exact(layer, x).abs().max())
        splitting = layer.plan.splitting
        w, u_in, b = (ready.weights[k][0] for k in ("W", "U", "b"))
        theta = (torch.eye(n)[None] - (w @ w.T)[None], -(x @ u_in.T + b))
        prepared = splitting.prepare(theta, ready.factors)
        solve = forward_solve(splitting, None, tolerance=TOLERANCE, max_steps=10_000)
        start, m, c, out = splitting.start(batch, theta), (w @ w.T).contiguous(), theta[1], torch.empty(batch, n)

        def products() -> None:
            for _ in range(steps):
                torch.addmm(c, out, m, out=out)

        runs = [
            lambda: layer(x, prepared=ready),
            lambda: solve(start.clone(), theta, prepared),
            products,
        ]
        times = raced(runs, [20, 20, 20])
    base = times[2][0]
    names = ("solve", "steps", f"{steps} addmm")
    return [
        Row("loop", name, f"n={n}", batch, "float32", *spent, NOTHING if "addmm" in name else error, NOTHING,
            f"{spent[0] / base:.2f} x {steps} addmm")
        for name, spent in zip(names, times, strict=True)
    ]  # fmt: skip


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    publish("loop", [row for n in options.sizes for batch in options.batches for row in measure(n, batch)])


if __name__ == "__main__":
    main()
