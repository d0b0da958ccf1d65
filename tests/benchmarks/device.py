"""The OptEq layer on a GPU: eager, as CUDA graphs, and by the fused kernel, against cvxpylayers on the CPU.

    python -m tests.benchmarks.device [--sizes 64 128 256 512] [--batches 128 4096] [--dry] [--device cuda]

The layer and its data are those of `opteq_unit`, at tolerance 1e-4 in float32 and 1e-8 in float64. cvxpylayers' default
(DIFFCP) runs on the CPU at batch 32 and 128; "per sample" in the notes compares the best of those with ours at the same
n. Errors are relative, in the maximum norm, against the active set solved densely. A run takes about five minutes.
"""

import argparse
from collections.abc import Callable

import torch

import opteq_cvx as oc
from tests.benchmarks import unit_peers
from tests.benchmarks.harness import Row, publish, timed
from tests.benchmarks.opteq_unit import declare, exact

TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-8}
CHECKED = 32  # samples whose accuracy is checked
PEER_SIZE = 100
NOTHING = float("nan")


def data(n: int, batch: int, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """x and the cotangent v."""
    g = torch.Generator().manual_seed(0)
    x, v = torch.randn(2, batch, n, generator=g, dtype=torch.float64)
    return x.to(device, dtype), v.to(device, dtype)


def errors(layer: oc.EquilibriumLayer, x: torch.Tensor, v: torch.Tensor) -> tuple[float, float]:
    """Of the values, and of the gradient in x, for the first samples."""
    w, u_in, b = (layer.weights.value(k).detach().double().cpu() for k in ("W", "U", "b"))
    few, back = x[:CHECKED].double().cpu(), v[:CHECKED].double().cpu()
    values, (*_, slope) = exact(w, u_in, b, few, back)
    point = x[:CHECKED].clone().requires_grad_()
    (found,) = layer(point)
    found.backward(v[:CHECKED])
    assert point.grad is not None
    off = (found.detach().double().cpu() - values).abs().max() / values.abs().max()
    return float(off), float((point.grad.double().cpu() - slope).abs().max() / slope.abs().max())


def rows(n: int, batch: int, dtype: torch.dtype, device: torch.device) -> list[Row]:
    """Eager, as graphs and fused, forward alone and with backward."""
    x, v = data(n, batch, dtype, device)
    found = []
    for who, iteration in (
        ("eager", None),
        ("CUDA graphs", oc.Inertial(graphs=True)),
        ("fused", oc.Inertial(fused=True)),
    ):
        layer = declare(n, TOLERANCES[dtype], iteration).to(device, dtype)
        off, slope_off = errors(layer, x, v)
        for what, run in (("forward", forward(layer, x)), ("forward + backward", both(layer, x, v))):
            spent = timed(synchronized(run, device), repeats=15, warm=3, budget_s=4.0)
            each = f"{1e3 * spent[0] / batch:.3g} us a sample"
            found.append(Row(what, who, f"n={n}", batch, str(dtype)[6:], *spent, off, slope_off, each))
    return found


def forward(layer: oc.EquilibriumLayer, x: torch.Tensor) -> Callable[[], object]:
    """A call without gradients."""

    def run() -> object:
        with torch.no_grad():
            return layer(x)

    return run


def both(layer: oc.EquilibriumLayer, x: torch.Tensor, v: torch.Tensor) -> Callable[[], object]:
    """A call and the gradients of all weights."""

    def run() -> object:
        layer.zero_grad()
        (u,) = layer(x)
        u.backward(v)
        return u

    return run


def synchronized(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """`run`, and the wait for the device."""

    def whole() -> object:
        done = run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return done

    return whole


def peer(batch: int) -> Row:
    """cvxpylayers' default on the CPU."""
    x, v = data(PEER_SIZE, batch, torch.float64, torch.device("cpu"))
    layer = declare(PEER_SIZE, 1e-8).double()
    leaves = tuple(t.detach().clone().requires_grad_() for t in (*map(layer.weights.value, ("W", "U", "b")), x))
    run = unit_peers.cvxpylayers(leaves, v, "DIFFCP")
    spent = timed(run, repeats=3, warm=1, budget_s=30.0)
    each = f"{1e3 * spent[0] / batch:.3g} us a sample"
    return Row(
        "forward + backward", "cvxpylayers, CPU", f"n={PEER_SIZE}", batch, "float64", *spent, NOTHING, NOTHING, each
    )


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, PEER_SIZE, 256, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 4096])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry", action="store_true", help="print the rows, write nothing")
    options, _ = parser.parse_known_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: nothing is measured")
        return
    kinds = list(TOLERANCES)
    found = [r for n in options.sizes for b in options.batches for d in kinds for r in rows(n, b, d, device)]
    if options.dry:
        print(*found, sep="\n")
        return
    publish("device", [*found, *(peer(batch) for batch in (32, 128))])


if __name__ == "__main__":
    main()
