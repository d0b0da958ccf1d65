"""2-D total-variation denoising, matrix-free, to a relative duality gap of 1e-4: time and steps by size.

    python -m tests.benchmarks.total_variation [--sides 64 128 256] [--batch 2]

The gap is the objective of the returned image minus the dual bound of `Solution.certificate`, which comes from the
returned point and multipliers alone; it proves the image's accuracy, for the program has no constraints.
"""

import argparse
import time

import cvxpy as cp
import torch

import opteq_cvx as oc
from tests.benchmarks.harness import Row, publish

NOISE, STRENGTH = 0.1, 0.1


def denoiser(side: int, tolerance: float) -> oc.EquilibriumLayer:
    """min ½‖X − y‖² + λ TV(X) over images of side × side, λ learned."""
    y, lam = oc.Input((side, side), name="y"), oc.Weight(name="lam", nonneg=True, init=STRENGTH)
    image = cp.Variable((side, side), name="X")
    cost = 0.5 * cp.sum_squares(image - y) + lam * cp.tv(image)
    return oc.compile(cp.Problem(cp.Minimize(cost)), splitting="primal-dual", tolerance=tolerance).double()


def images(side: int, batch: int) -> torch.Tensor:
    """Noisy images of a disk beside a plateau."""
    t = torch.linspace(0.0, 1.0, side, dtype=torch.float64)
    disk = ((t[:, None] - 0.5) ** 2 + (t[None] - 0.5) ** 2 < 0.1).double() + 0.5 * (t[None] > 0.7)
    noise = torch.randn(batch, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return disk + NOISE * noise


def row(side: int, batch: int, tolerance: float) -> Row:
    """One size: a single solve is timed, for it takes seconds."""
    started = time.perf_counter()
    layer, noisy = denoiser(side, tolerance), images(side, batch)
    compiled = time.perf_counter() - started
    with torch.no_grad():
        started = time.perf_counter()
        solution = layer.solve(noisy)
        took = 1e3 * (time.perf_counter() - started)
    gap = float(((solution.objective - solution.certificate.bound) / solution.objective.abs()).max())
    note = f"{int(solution.stats.steps.max())} steps, compiled in {compiled:.2f} s; value error is the gap"
    return Row("TV denoising", "opteq", f"{side}x{side}", batch, "float64", took, took, took, gap, float("nan"), note)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of the relative optimality error, gap included")
    parser.add_argument("--dry", action="store_true", help="print the rows, write nothing")
    options, _ = parser.parse_known_args()
    rows = [row(side, options.batch, options.tolerance) for side in options.sides]
    if options.dry:
        print(*rows, sep="\n")
    else:
        publish("total_variation", rows)


if __name__ == "__main__":
    main()
