"""Forward + backward of the convolutional OptEq layer against torchdeq and a loop written by hand, on the same map.

    python -m tests.benchmarks.convolution [--threads N] [--channels 16 32] [--batches 64] [--dry]

The layer is u = relu(A Aᵀu + V ∗ x + b) of `problems/conv_opteq.py` on images of 28 × 28 (14 × 14 inside), ‖A‖₂ ≤ 0.95;
gradients go to K, V, b and x. Our time includes the norm bound of the kernel, the others get the effective kernel. All
solve the same equation, forward and backward. Their tolerance is on ‖u − T(u)‖ / ‖u‖, ours on the distance to the
solution, which asks for a residual some ten times smaller: at ten times the tolerance we do what they do. What all
reach is in the table, relative in the maximum norm, against the loop in float64 at 1e-13; in float32 gradients differ
where a unit's sign is a matter of rounding. cvxpylayers would need a dense root of
I − A Aᵀ, 3,136 × 3,136 numbers for 16 channels, and is left out.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d

import opteq_cvx as oc
from opteq_cvx.problem_file import read_problem
from tests.benchmarks.harness import Row, publish, raced

PROBLEM = Path(__file__).parents[2] / "problems" / "conv_opteq.py"
Answer = tuple[Tensor, list[Tensor]]
Run = Callable[[], Answer]
CASES = ((torch.float32, 1e-3), (torch.float64, 1e-6))
ROUNDS, MANY, SCALE = 5, 5000, 4.0


def map_of(k: Tensor, c: Tensor) -> Callable[[Tensor], Tensor]:
    """u ↦ relu(A Aᵀu + c)."""
    return lambda u: torch.relu(conv2d(conv_transpose2d(u, k, padding=1), k, padding=1) + c)


def injected(v: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """V ∗ x + b."""
    return conv2d(x, v, stride=2, padding=2) + b


def picard(step: Callable[[Tensor], Tensor], u: Tensor, tolerance: float) -> Tensor:
    """Plain steps until the whole batch has moved by less than the tolerance."""
    for _ in range(MANY):
        new = step(u)
        done = bool((new - u).norm() <= tolerance * new.norm())
        u = new
        if done:
            break
    return u


def hand_loop(leaves: list[Tensor], v: Tensor, tolerance: float) -> Run:
    """Steps without autograd, the adjoint equation by plain steps, one differentiated step for the leaves."""

    def run() -> Answer:
        k, w, b, x = (t.detach().clone().requires_grad_() for t in leaves)
        with torch.no_grad():
            c = injected(w, b, x)
            u = picard(map_of(k, c), torch.relu(c), tolerance)
            on = (u > 0).to(u)
            y = picard(lambda y: v + conv2d(conv_transpose2d(on * y, k, padding=1), k, padding=1), v, tolerance)
        map_of(k, injected(w, b, x))(u).backward(y)
        return u, [t.grad for t in (k, w, b, x) if t.grad is not None]

    return run


def torchdeq(leaves: list[Tensor], v: Tensor, tolerance: float, solver: str) -> Run:
    """torchdeq with exact implicit gradients by the same solver."""
    from torchdeq import get_deq

    both = {f"{side}_{what}": value for side in "fb" for what, value in (("max_iter", 1000), ("tol", tolerance))}
    deq = get_deq(f_solver=solver, b_solver=solver, f_stop_mode="rel", b_stop_mode="rel", ift=True, **both)

    def run() -> Answer:
        k, w, b, x = (t.detach().clone().requires_grad_() for t in leaves)
        c = injected(w, b, x)
        out, _ = deq(map_of(k, c), torch.zeros_like(c))
        out[-1].backward(v)
        return out[-1].detach(), [t.grad for t in (k, w, b, x) if t.grad is not None]

    return run


def ours(channels: int, x: Tensor, v: Tensor, tolerance: float) -> tuple[Run, oc.EquilibriumLayer]:
    """The layer; gradients in the free parameters behind the weights."""
    torch.manual_seed(0)
    layer = oc.compile(*read_problem(PROBLEM).declare(channels=channels), tolerance=tolerance).to(x.dtype)
    with torch.no_grad():
        layer.weights.raw("K").mul_(SCALE)  # up to its bound, as after training

    def run() -> Answer:
        layer.zero_grad()
        point = x.clone().requires_grad_()
        (u,) = layer(point)
        u.backward(v)
        assert point.grad is not None
        return u.detach(), [*(layer.weights.raw(name).grad for name in ("K", "V", "b")), point.grad]

    return run, layer


def effective(layer: oc.EquilibriumLayer, x: Tensor, v: Tensor) -> Answer:
    """Values and gradients in the effective K, V, b and x, for the comparison of accuracy."""
    weights = {name: layer.weights.value(name).detach().requires_grad_() for name in ("K", "V", "b")}
    point = x.clone().requires_grad_()
    factors = oc.Factors({name: t.unsqueeze(0) for name, t in weights.items()}, None)
    (u,) = layer(point, prepared=factors)
    return u.detach(), list(torch.autograd.grad(u, [*weights.values(), point], v))


def error(got: Answer, want: Answer) -> tuple[float, float]:
    """Relative errors in the maximum norm: of the values, and the worst of the gradients."""
    pairs = [(got[0], want[0]), *zip(got[1], want[1], strict=True)]
    found = [float((g.double() - t).abs().max() / t.abs().max()) for g, t in pairs]
    return found[0], max(found[1:])


def measure(channels: int, batch: int, dtype: torch.dtype, tolerance: float) -> list[Row]:
    """All contenders in turns."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 1, 28, 28, generator=g, dtype=torch.float64).to(dtype)
    v = torch.randn(batch, channels, 14, 14, generator=g, dtype=torch.float64).to(dtype)
    run, layer = ours(channels, x, v, tolerance)
    loose, loosely = ours(channels, x, v, 10 * tolerance)
    leaves = [*(layer.weights.value(name).detach() for name in ("K", "V", "b")), x]
    want = hand_loop([t.double() for t in leaves], v.double(), 1e-13)()
    own = {"opteq_cvx": layer, f"opteq_cvx, {10 * tolerance:g}": loosely}
    runs = {**dict(zip(own, (run, loose), strict=True)), "hand-written loop": hand_loop(leaves, v, tolerance)}
    try:
        for solver in ("fixed_point_iter", "anderson"):
            runs[f"torchdeq, {solver}"] = torchdeq(leaves, v, tolerance, solver)
    except ImportError as missing:
        print(f"torchdeq: left out, {missing}")
    times = raced(list(runs.values()), [2] * len(runs), ROUNDS)
    rows = []
    for (who, contender), spent in zip(runs.items(), times, strict=True):
        got = effective(own[who], x, v) if who in own else contender()
        off, kind = error(got, want), str(dtype).removeprefix("torch.")
        rows.append(
            Row("convolutional OptEq", who, f"{channels} channels", batch, kind, *spent, *off, f"{tolerance:g}")
        )
    return rows


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--batches", type=int, nargs="+", default=[64])
    parser.add_argument("--dry", action="store_true", help="print the rows, write nothing")
    options, _ = parser.parse_known_args()
    torch.set_num_threads(options.threads)
    rows = [r for n in options.channels for b in options.batches for case in CASES for r in measure(n, b, *case)]
    if options.dry:
        print(*rows, sep="\n")
    else:
        publish("convolution", rows)


if __name__ == "__main__":
    main()
