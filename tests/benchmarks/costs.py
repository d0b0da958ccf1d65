"""The constants of `opteq_cvx.splitting.cost` on this machine, and its estimates beside solves by both ways.

    python -m tests.benchmarks.costs

Seconds are of the process, one thread: constants the least of several runs, solves a first call. `right` says that the
plan took the faster way, or one less than twice as slow. Written to results/costs.md.
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
from tests.benchmarks.harness import RESULTS, machine

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


def filtering(n: int) -> tuple[cp.Problem, Tensor]:
    """Second differences of a path, in the l1 norm."""
    y, x = oc.Input(n, name="y"), cp.Variable(n, name="x")
    data = torch.randn(cost.BATCH, n, dtype=F64, generator=torch.Generator().manual_seed(0)).cumsum(1)
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - y) + 2 * cp.norm1(cp.diff(x, 2)))), data


def separating(n: int, m: int = 80) -> tuple[cp.Problem, Tensor]:
    """Hinge losses of m margins."""
    a, w, y = np.random.default_rng(1).normal(size=(m, n)), cp.Variable(n, name="w"), oc.Input(m, name="y")
    data = torch.randn(cost.BATCH, m, dtype=F64, generator=torch.Generator().manual_seed(0))
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(w) + cp.sum(cp.pos(1 - a @ w - y)) / m)), data


PROGRAMS = {
    "regression, n = 60": lambda: regression(60),
    "hinge losses, n = 100": lambda: separating(100),
    "trend filtering, n = 100": lambda: filtering(100),
    "denoising, 8 × 8": lambda: denoising(8),
    "denoising, 20 × 20": lambda: denoising(20),
    "denoising, 32 × 32": lambda: denoising(32),
}


def compared(make: Callable[[], tuple[cp.Problem, Tensor]]) -> tuple[cost.Estimate, list[float], list[int]]:
    """The estimate, and the seconds and most steps of a first solve by a factorization and by products."""
    problem, data = make()
    source = oc.explain(problem).plan.source
    spent, steps = list[float](), list[int]()
    for name in ("douglas-rachford", "primal-dual"):
        layer = oc.compile(problem, splitting=name, tolerance=1e-5).double()
        started = time.process_time()
        solution = layer.solve(data)
        spent.append(time.process_time() - started)
        steps.append(int(solution.stats.steps.max()))
    return cost.estimate(SaddleForm.of(run(source, None))), spent, steps


def row(name: str) -> str:
    """One line of the table."""
    e, (factored, products), steps = compared(PROGRAMS[name])
    by_products = e.refusal is not None
    taken, other = (products, factored) if by_products else (factored, products)
    right = "yes" if taken < cost.MARGIN * other else f"no, {taken / other:.1f} times slower"
    promised = cost.STEPS_CURVED if e.curved else cost.STEPS_LOOSE
    cells = [
        f"{name} | {e.n} | {e.m}",
        f"{e.factored:.2g} | {factored:.2g} | {cost.STEPS_FACTORED} | {steps[0]}",
        f"{e.products:.2g} | {products:.2g} | {promised} | {steps[1]}",
        f"{'products' if by_products else 'factorization'} | {right}",
    ]
    return f"| {' | '.join(cells)} |"


HEAD = """
| program | n | m | factorization: s, estimate | s | steps, estimate | steps | products: s, estimate | s \
| steps, estimate | steps | taken | right |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Print the constants and the comparison, and write them down."""
    torch.set_num_threads(1)
    where = f"{machine()['processor']}, one thread, tolerance 1e-5, batch {cost.BATCH}, seconds of the process"
    text = ["# costs", "", where, ""]
    text += [f"- {name}: {value:.2g}, in use {getattr(cost, name):.2g}" for name, value in constants().items()]
    print("\n".join(text), HEAD, sep="\n", end="", flush=True)
    rows = []
    for name in PROGRAMS:
        rows.append(row(name))
        print(rows[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "costs.md").write_text("\n".join(text) + "\n" + HEAD + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
