"""Set-up time and memory against the size of a dense parameter, each in a fresh process.

    python -m tests.benchmarks.compile_size [--peer-size 300]

The program is the OptEq layer with an n × n weight; `norm=` adds the cost of the norm ball when the layer is called.
cvxpylayers gets ½‖Qu‖² − ⟨c, u⟩ with an n × n parameter Q, at a size it still manages.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import cvxpy as cp
import numpy as np

from tests.benchmarks.harness import Row, publish


def megabytes() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(n: int, norm: float | None) -> dict[str, float]:
    """Compile an n × n layer; with `norm`, also evaluate the constrained weight once."""
    import opteq_cvx as oc

    small = cp.Variable(2)
    oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(small))))  # imports are not set-up
    weight, x = oc.Weight((n, n), name="W", norm=norm), oc.Input(n, name="x")
    u = cp.Variable(n, nonneg=True, name="u")
    quadratic = cp.quad_form(u, cp.psd_wrap(np.eye(n) - weight @ weight.T))
    problem = cp.Problem(cp.Minimize(0.5 * quadratic - x @ u))
    before, begin = megabytes(), time.perf_counter()
    layer = oc.compile(problem)
    took, peak = time.perf_counter() - begin, megabytes() - before
    begin = time.perf_counter()
    layer.weights.value("W")
    return {"seconds": took, "megabytes": peak, "weight": n * n * 8 / 2**20, "evaluate": time.perf_counter() - begin}


def theirs(n: int) -> dict[str, float]:
    """Construct the cvxpylayers layer with an n × n parameter."""
    from cvxpylayers.torch import CvxpyLayer

    q, c, u = cp.Parameter((n, n)), cp.Parameter(n), cp.Variable(n, nonneg=True)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(q @ u) - c @ u))
    before, begin = megabytes(), time.perf_counter()
    CvxpyLayer(problem, parameters=[q, c], variables=[u])
    return {
        "seconds": time.perf_counter() - begin,
        "megabytes": megabytes() - before,
        "weight": n * n * 8 / 2**20,
        "evaluate": 0.0,
    }


def measure(who: str, n: int, norm: float | None) -> Row:
    """Three fresh processes; the median."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.compile_size", "--child", who, "--size", str(n)]
    command += ["--norm", str(norm)] if norm is not None else []
    runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(3)]
    runs.sort(key=lambda r: r["seconds"])
    mid, name = runs[1], who if norm is None else f"{who}, norm={norm}"
    note = f"+{mid['megabytes']:.0f} MB for a weight of {mid['weight']:.0f} MB"
    note += f"; weight evaluated in {mid['evaluate']:.2f} s" if norm is not None else ""
    times = (1e3 * mid["seconds"], 1e3 * runs[0]["seconds"], 1e3 * runs[2]["seconds"])
    return Row("set-up", name, f"n={n}", 0, "float64", *times, 0.0, 0.0, note)


def main() -> None:
    """Measure sizes up to 4000, and the peer at a size it manages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", choices=("opteq_cvx", "cvxpylayers"))
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--norm", type=float)
    parser.add_argument("--peer-size", type=int, nargs="*", default=[100, 300])
    parser.add_argument("--threads", type=int)  # accepted for `make bench`; set-up is not threaded
    options = parser.parse_args()
    if options.child:
        print(json.dumps(ours(options.size, options.norm) if options.child == "opteq_cvx" else theirs(options.size)))
        return
    rows = [measure("opteq_cvx", n, None) for n in (100, 300, 1000, 4000)]
    rows.append(measure("opteq_cvx", 1000, 0.9))
    rows += [measure("cvxpylayers", n, None) for n in options.peer_size]
    publish("compile_size", sorted(rows, key=lambda r: int(r.size[2:])))


if __name__ == "__main__":
    main()
