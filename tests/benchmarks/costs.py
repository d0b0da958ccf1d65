"""The constants of `opteq_cvx.splitting.cost` on this machine, and its estimates beside solves by both ways.

    python -m tests.benchmarks.costs

Seconds are of the process, one thread, the least of several runs.
"""

import time
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.passes import run
from opteq_cvx.splitting import cost
from opteq_cvx.splitting.saddle_form import SaddleForm
from opteq_cvx.splitting.system import factorize

F64 = torch.float64


def seconds(work: Callable[[], object], times: int = 5) -> float:
    """The least of several runs."""
    found = []
    for _ in range(times):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


def constants(n: int = 512) -> dict[str, float]:
    """F, G, M, L and C, as `cost` names them."""
    root = torch.randn(1, n, n, dtype=F64)
    a = root @ root.mT + torch.eye(n, dtype=F64)
    own = a[:, : n // 4, : n // 4].expand(cost.BATCH, -1, -1)
    x, dense = torch.randn(cost.BATCH, n, dtype=F64), a[0]
    image = torch.randn(cost.BATCH, 256, 256, dtype=F64)
    found = {
        "FACTOR": n**3 / seconds(lambda: factorize(a, a / 2)),
        "OWN": cost.BATCH * (n // 4) ** 3 / seconds(lambda: factorize(own, own / 2)),
        "PRODUCT": 2 * cost.BATCH * n * n / seconds(lambda: x @ dense),
        "LOOSE": image.numel() / seconds(lambda: image[:, 1:] - image[:, :-1]),
    }
    problem, data = denoising(4)
    layer = oc.compile(problem, splitting="douglas-rachford").double()
    steps: list[float] = []
    spent = seconds(lambda: steps.append(float(layer.solve(data[:1]).stats.steps.max())))
    return {**found, "CALLS": spent / steps[-1]}


def denoising(n: int) -> tuple[cp.Problem, Tensor]:
    """Total variation of an image."""
    y, image = oc.Input((n, n), name="y"), cp.Variable((n, n), name="X")
    data = torch.rand(cost.BATCH, n, n, dtype=F64, generator=torch.Generator().manual_seed(0))
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(image - y) + 0.1 * cp.tv(image))), data


def regression(n: int) -> tuple[cp.Problem, Tensor]:
    """Least absolute deviations with a dense matrix."""
    a, x, y = np.random.default_rng(0).normal(size=(2 * n, n)), cp.Variable(n, name="x"), oc.Input(2 * n, name="y")
    data = torch.randn(cost.BATCH, 2 * n, dtype=F64, generator=torch.Generator().manual_seed(0))
    return cp.Problem(cp.Minimize(cp.norm1(a @ x - y) / n + 0.1 * cp.norm1(x) + 0.05 * cp.sum_squares(x))), data


PROGRAMS = {
    "regression, n = 60": lambda: regression(60),
    "denoising, 8 × 8": lambda: denoising(8),
    "denoising, 32 × 32": lambda: denoising(32),
}


def compared(make: Callable[[], tuple[cp.Problem, Tensor]]) -> tuple[cost.Estimate, float, float]:
    """The estimate, and the seconds of a first solve by a factorization and by products."""
    problem, data = make()
    source = oc.explain(problem).plan.source
    spent = []
    for name in ("douglas-rachford", "primal-dual"):
        layer = oc.compile(problem, splitting=name, tolerance=1e-5).double()
        started = time.process_time()
        layer.solve(data)
        spent.append(time.process_time() - started)
    return cost.estimate(SaddleForm.of(run(source, None)).maps), spent[0], spent[1]


def main() -> None:
    """Print the constants and the comparison."""
    torch.set_num_threads(1)
    for name, value in constants().items():
        print(f"{name:8s} {value:.2g}  (in use: {getattr(cost, name):.2g})")
    print("\n| program | n | m | factorization: estimate | measured | products: estimate | measured | chosen |")
    print("|---|---|---|---|---|---|---|---|")
    for name, make in PROGRAMS.items():
        e, factored, products = compared(make)
        chosen = "products" if e.refusal else "factorization"
        print(
            f"| {name} | {e.n} | {e.m} | {e.factored:.2g} | {factored:.2g} "
            f"| {e.products:.2g} | {products:.2g} | {chosen} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
