"""Forward + backward of the trainable OptEq layer against every peer that installs, in one run.

    python -m tests.benchmarks.opteq_unit [--threads N]

The layer is u = argmin_{u ≥ 0} ½uᵀ(I − WWᵀ)u − ⟨Ux + b, u⟩ with ‖W‖ ≤ 0.95; gradients go to W, U, b and x. cvxpylayers
gets the same program with ½‖Bu‖², B = chol(I − WWᵀ)ᵀ computed and differentiated by torch. Errors are relative, in the
maximum norm, against the solution refined on its active set by dense linear algebra. Our time includes the
parametrization that holds the norm bound; the peers get the effective weights.
"""

import argparse
import time
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc
from tests.benchmarks import unit_peers
from tests.benchmarks.harness import Row, publish, raced
from tests.benchmarks.unit_peers import Answer, Leaves

BATCH = 128
NORM = 0.95


def declare(n: int, tolerance: float, iteration: oc.Inertial | None = None) -> oc.EquilibriumLayer:
    """The layer of DESIGN section 1 with as many inputs as units, its W scaled up to the bound."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(n, n))
    x = oc.Input(n, name="x")
    weight = oc.Weight((n, n), name="W", norm=NORM, init=0.999 * NORM * w / np.linalg.norm(w, 2))
    u_in = oc.Weight((n, n), name="U", init=rng.normal(size=(n, n)) / np.sqrt(n))
    b = oc.Weight(n, name="b", init=rng.normal(size=n))
    u = cp.Variable(n, nonneg=True, name="u")
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(n) - weight @ weight.T)) - (u_in @ x + b) @ u
    return oc.compile(cp.Problem(cp.Minimize(energy)), outputs=[u], tolerance=tolerance, iteration=iteration)


def exact(w: Tensor, u_in: Tensor, b: Tensor, x: Tensor, v: Tensor) -> Answer:
    """Solution and gradients by the active set: many Picard steps, then dense systems on the support."""
    n = w.shape[0]
    c = x @ u_in.T + b
    gram, u = w @ w.T, torch.zeros_like(c)
    for _ in range(2000):
        u = torch.relu(u @ gram + c)
    adjoint = torch.zeros_like(u)
    for i in range(u.shape[0]):
        on = u[i] > 0
        block = (torch.eye(n, dtype=w.dtype) - gram)[on][:, on]
        u[i, on] = torch.linalg.solve(block, c[i, on])
        adjoint[i, on] = torch.linalg.solve(block, v[i, on])
    grad_gram = adjoint.T @ u
    return u, [(grad_gram + grad_gram.T) @ w, adjoint.T @ x, adjoint.sum(0), adjoint @ u_in]


def ours(n: int, x: Tensor, v: Tensor, tolerance: float) -> tuple[Callable[[], Answer], oc.EquilibriumLayer]:
    """Our layer's forward and backward, with gradients in the free parameters behind the weights."""
    layer = declare(n, tolerance).to(x.dtype)
    names = ("W", "U", "b")

    def run() -> Answer:
        layer.zero_grad()
        point = x.clone().requires_grad_()
        (u,) = layer(point)
        u.backward(v)
        assert point.grad is not None
        return u.detach(), [*(layer.weights.raw(k).grad for k in names), point.grad]

    return run, layer


def effective(layer: oc.EquilibriumLayer, x: Tensor, v: Tensor) -> Answer:
    """Values and gradients in the effective W, U, b and x, for the comparison of accuracy."""
    weights = {k: layer.weights.value(k).detach().requires_grad_() for k in ("W", "U", "b")}
    point = x.clone().requires_grad_()
    factors = oc.Factors({k: t.unsqueeze(0) for k, t in weights.items()}, None)
    (u,) = layer(point, prepared=factors)
    grads = torch.autograd.grad(u, [*weights.values(), point], v)
    return u.detach(), list(grads)


def error(got: Answer, want: Answer) -> tuple[float, float]:
    """Relative errors in the maximum norm: of the values, and the worst of the gradients."""
    value = float((got[0].double() - want[0]).abs().max() / want[0].abs().max())
    grads = [float((g.double() - t).abs().max() / t.abs().max()) for g, t in zip(got[1], want[1], strict=True)]
    return value, max(grads)


PEERS: dict[str, Callable[[Leaves, Tensor], Callable[[], Answer]]] = {
    "cvxpylayers (DIFFCP)": lambda leaves, v: unit_peers.cvxpylayers(leaves, v, "DIFFCP"),
    "cvxpylayers (MOREAU)": lambda leaves, v: unit_peers.cvxpylayers(leaves, v, "MOREAU"),
    "qpth": unit_peers.qpth,
    "QPLayer (proxsuite)": unit_peers.qplayer,
}
DOUBLE = {1e-8: "tolerance 1e-8", 1e-6: "tolerance 1e-6", 1e-4: "tolerance 1e-4"}
ROUNDS, SLOW = 5, 300.0


def against_solvers(n: int) -> list[Row]:
    """float64, our three tolerances, every solver that installs, the loop written by hand."""
    leaves, v, want = instance(n, torch.float64)
    runs: dict[str, tuple[Callable[[], Answer], Answer, str]] = {}
    for tolerance, note in DOUBLE.items():
        run, layer = ours(n, leaves[3], v, tolerance)
        name = "opteq_cvx" if tolerance == 1e-8 else f"opteq_cvx, {tolerance:.0e}".replace("e-0", "e-")
        runs[name] = (run, effective(layer, leaves[3], v), note)
    runs["hand-written loop"] = _tried(lambda: unit_peers.hand_loop(leaves, v, 1e-10), "tolerance 1e-10")
    for name, make in PEERS.items():
        try:
            runs[name] = _tried(lambda make=make: make(leaves, v), "")  # type: ignore[misc]
        except ImportError as missing:
            print(f"{name}: left out, {missing}")
    return _rows(f"n={n}", "float64", runs, want)


def against_fixed_points(n: int, dtype: torch.dtype, tolerance: float) -> list[Row]:
    """torchdeq (Picard) on the same map at the same tolerance, and the loop written by hand."""
    leaves, v, want = instance(n, dtype)
    run, layer = ours(n, leaves[3], v, tolerance)
    runs = {"opteq_cvx": (run, effective(layer, leaves[3], v), f"tolerance {tolerance:g}")}
    runs["hand-written loop"] = _tried(lambda: unit_peers.hand_loop(leaves, v, tolerance), f"tolerance {tolerance:g}")
    try:
        runs["torchdeq"] = _tried(lambda: unit_peers.torchdeq(leaves, v, tolerance), f"tolerance {tolerance:g}")
    except ImportError as missing:
        print(f"torchdeq: left out, {missing}")
    return _rows(f"n={n}, fixed point", str(dtype).removeprefix("torch."), runs, want)


def instance(n: int, dtype: torch.dtype) -> tuple[Leaves, Tensor, Answer]:
    """Effective weights and a batch, the cotangent, and the exact answer (in float64)."""
    g = torch.Generator().manual_seed(0)
    x, v = (torch.randn(BATCH, n, generator=g, dtype=torch.float64).to(dtype) for _ in range(2))
    layer = ours(n, x, v, 1e-6)[1]
    w, u_in, b = (layer.weights.value(k).detach() for k in ("W", "U", "b"))
    return (w, u_in, b, x), v, exact(*(t.double() for t in (w, u_in, b, x, v)))


def _tried(make: Callable[[], Callable[[], Answer]], note: str) -> tuple[Callable[[], Answer], Answer, str]:
    run = make()
    return run, run(), note


def _rows(size: str, dtype: str, runs: dict[str, tuple[Callable[[], Answer], Answer, str]], want: Answer) -> list[Row]:
    counts = []
    for run, _, _ in runs.values():
        begin = time.perf_counter()
        run()
        counts.append(1 if 1e3 * (time.perf_counter() - begin) > SLOW else 10)
    times = raced([run for run, _, _ in runs.values()], counts, ROUNDS)
    return [
        Row("OptEq layer", name, size, BATCH, dtype, *spent, *error(got, want), note)
        for (name, (_, got, note)), spent in zip(runs.items(), times, strict=True)
    ]


def main() -> None:
    """Measure against solvers at n = 100 and 200, against fixed-point loops at n = 100 and 400."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 200])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for n in options.sizes for row in against_solvers(n)]
    for n, dtype, tolerance in ((100, torch.float64, 1e-6), (400, torch.float64, 1e-6), (100, torch.float32, 1e-4)):
        rows += against_fixed_points(n, dtype, tolerance)
    publish("opteq_unit", rows)


if __name__ == "__main__":
    main()
