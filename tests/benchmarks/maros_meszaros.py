"""Maros–Mészáros quadratic programs beside OSQP and SCS, each asked for the same accuracy, in one run.

    python -m tests.benchmarks.maros_meszaros --data FOLDER [--most 1000] [--tolerance 1e-4 1e-6] [--only NAME ...]

FOLDER holds `maros_meszaros/*.mat` (P, q, r, A, l, u of min ½xᵀPx + qᵀx + r, l ≤ Ax ≤ u, bounds of 9e19 infinite) and
`maros_meszaros_reference.csv` (name, n, m, …, obj_clarabel). Without it the benchmark says so and ends. A program
counts as solved where its relative objective and feasibility reach the tolerance, whatever a solver says of itself.
Source: Maros & Mészáros, A repository of convex quadratic programming problems, Optim. Methods Softw. 11 (1999).
"""

import argparse
import csv
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cvxpy as cp
import numpy as np
import scipy.io
import scipy.sparse as sp

import opteq_cvx as oc
from tests.benchmarks.harness import RESULTS, machine

INFINITE = 9e19


@dataclass(frozen=True, slots=True)
class Quadratic:
    """min ½xᵀPx + qᵀx + r over l ≤ Ax ≤ u, and its optimal value."""

    name: str
    p: sp.csc_matrix
    q: np.ndarray
    r: float
    a: sp.csc_matrix
    lower: np.ndarray
    upper: np.ndarray
    value: float

    def errors(self, x: np.ndarray) -> tuple[float, float]:
        """(relative objective error, relative violation)."""
        ax = self.a @ x
        worth = 0.5 * x @ (self.p @ x) + self.q @ x + self.r
        outside = np.maximum(np.maximum(self.lower - ax, ax - self.upper), 0.0).max(initial=0.0)
        bounds = [np.abs(b[np.isfinite(b)]).max(initial=0.0) for b in (self.lower, self.upper)]
        objective = abs(worth - self.value) / max(1.0, abs(self.value))
        return float(objective), float(outside / max(1.0, np.abs(ax).max(initial=0.0), *bounds))


@dataclass(frozen=True, slots=True)
class Result:
    """What one solver made of one program."""

    name: str
    n: int
    m: int
    who: str
    tolerance: float
    objective: float
    violation: float
    seconds: float
    status: str

    @property
    def solved(self) -> bool:
        """Whether both errors are below the tolerance."""
        return max(self.objective, self.violation) <= self.tolerance


def read(folder: Path, most: int, only: Sequence[str]) -> list[Quadratic]:
    """The programs with at most `most` unknowns, smallest first."""
    with (folder / "maros_meszaros_reference.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if int(r["n"]) <= most and (not only or r["name"] in only)]
    found = []
    for row in sorted(rows, key=lambda r: int(r["n"])):
        raw = scipy.io.loadmat(folder / "maros_meszaros" / f"{row['name']}.mat")
        low, high = (raw[key].ravel().astype(float) for key in "lu")
        low, high = np.where(low <= -INFINITE, -np.inf, low), np.where(high >= INFINITE, np.inf, high)
        p, a = (sp.csc_matrix(raw[key], dtype=float) for key in "PA")
        r, value = float(np.ravel(raw["r"])[0]), row["obj_clarabel"]
        found.append(
            Quadratic(
                row["name"], p, raw["q"].ravel().astype(float), r, a, low, high, float(value) if value else np.nan
            )
        )
    return found


def ours(problem: Quadratic, tolerance: float) -> tuple[np.ndarray, str]:
    """Our layer, compiled from the program as a CVXPY user writes it."""
    n = problem.q.size
    x = cp.Variable(n, name="x")
    cost = 0.5 * cp.quad_form(x, cp.psd_wrap(problem.p)) + problem.q @ x + problem.r
    same = problem.lower == problem.upper
    above, below = np.isfinite(problem.lower) & ~same, np.isfinite(problem.upper) & ~same
    limits = []
    if same.any():
        limits.append(problem.a[same] @ x == problem.lower[same])
    if above.any():
        limits.append(problem.a[above] @ x >= problem.lower[above])
    if below.any():
        limits.append(problem.a[below] @ x <= problem.upper[below])
    layer = oc.compile(cp.Problem(cp.Minimize(cost), limits), tolerance=0.1 * tolerance).double()
    solution = layer.solve()
    return solution.values[0].detach().numpy(), solution.status[()].name.lower()


def osqp(problem: Quadratic, tolerance: float) -> tuple[np.ndarray, str]:
    """OSQP at the same relative accuracy."""
    import osqp as library

    solver = library.OSQP()
    options = {"eps_abs": 0.1 * tolerance, "eps_rel": 0.1 * tolerance, "max_iter": 100_000, "verbose": False}
    upper = sp.csc_matrix(sp.triu(problem.p))
    low, high = np.clip(problem.lower, -1e30, None), np.clip(problem.upper, None, 1e30)
    solver.setup(upper, problem.q, problem.a, low, high, **options)
    found = solver.solve()
    return np.asarray(found.x, dtype=float), str(found.info.status)


def scs(problem: Quadratic, tolerance: float) -> tuple[np.ndarray, str]:
    """SCS at the same relative accuracy."""
    import scs as library

    same = problem.lower == problem.upper
    above, below = np.isfinite(problem.lower) & ~same, np.isfinite(problem.upper) & ~same
    a = sp.csc_matrix(sp.vstack([problem.a[same], problem.a[below], -problem.a[above]]))
    b = np.concatenate([problem.lower[same], problem.upper[below], -problem.lower[above]])
    data = {"P": sp.csc_matrix(sp.triu(problem.p)), "A": a, "b": b, "c": problem.q}
    cone = {"z": int(same.sum()), "l": int(below.sum() + above.sum())}
    solver = library.SCS(data, cone, eps_abs=0.1 * tolerance, eps_rel=0.1 * tolerance, max_iters=100_000, verbose=False)
    found = solver.solve()
    return np.asarray(found["x"]), str(found["info"]["status"])


SOLVERS: dict[str, Callable[[Quadratic, float], tuple[np.ndarray, str]]] = {"opteq": ours, "OSQP": osqp, "SCS": scs}


def measured(problem: Quadratic, who: str, tolerance: float) -> Result:
    """One solver on one program; what it raises becomes its status."""
    started = time.perf_counter()
    objective, violation = np.inf, np.inf
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x, status = SOLVERS[who](problem, tolerance)
        if x.shape == problem.q.shape and np.isfinite(x).all():
            objective, violation = problem.errors(x)
    except oc.NotConvexError:
        status = "refused: not convex"
    except ImportError as missing:
        status = f"not installed: {missing.name}"
    seconds = time.perf_counter() - started
    size = problem.q.size, problem.a.shape[0]
    return Result(problem.name, *size, who, tolerance, objective, violation, seconds, status)


def summary(results: Sequence[Result]) -> str:
    """How many each solver solves, and each program that ours misses."""
    lines = ["| tolerance | who | solved | of | total s |", "|---|---|---|---|---|"]
    convex = [r for r in results if r.name != "VALUES"]
    for tolerance in sorted({r.tolerance for r in results}, reverse=True):
        for who in SOLVERS:
            own = [r for r in convex if (r.who, r.tolerance) == (who, tolerance)]
            total = f"{sum(r.seconds for r in own):.1f}"
            lines.append(f"| {tolerance:g} | {who} | {sum(r.solved for r in own)} | {len(own)} | {total} |")
    lines += ["", "| missed by opteq | n | m | tolerance | objective | violation | s | status |", "|---|" + "---|" * 7]
    for r in convex:
        if r.who == "opteq" and not r.solved:
            errors = f"{r.objective:.1e} | {r.violation:.1e} | {r.seconds:.1f}"
            lines.append(f"| {r.name} | {r.n} | {r.m} | {r.tolerance:g} | {errors} | {r.status} |")
    refused = [r for r in results if r.name == "VALUES" and r.who == "opteq"]
    lines += [f"\nVALUES (not convex): {r.status}" for r in refused[:1]]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder with the programs")
    parser.add_argument("--most", type=int, default=1000, help="largest number of unknowns")
    parser.add_argument("--tolerance", type=float, nargs="+", default=[1e-4, 1e-6])
    parser.add_argument("--only", nargs="*", default=[], help="names of programs")
    parser.add_argument("--write", action="store_true", help="write results/maros_meszaros.md and .json")
    options, _ = parser.parse_known_args()
    if options.data is None or not (options.data / "maros_meszaros_reference.csv").exists():
        print("skipped: pass --data FOLDER with the Maros–Mészáros programs")
        return
    results = []
    for problem in read(options.data, options.most, options.only):
        for tolerance in options.tolerance:
            for who in SOLVERS:
                result = measured(problem, who, tolerance)
                results.append(result)
                mark = "solved" if result.solved else "MISSED"
                errors = f"{result.objective:.1e} {result.violation:.1e} {result.seconds:.2f} s"
                print(
                    f"{problem.name:10s} n={result.n} {who:6s} {tolerance:g} {mark} {errors} {result.status}",
                    flush=True,
                )
    text = summary(results)
    print(f"\n{text}")
    if options.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "maros_meszaros.md").write_text(f"# Maros–Mészáros quadratic programs\n\n{text}\n")
        payload = {"machine": machine(), "rows": [{**asdict(r), "solved": r.solved} for r in results]}
        (RESULTS / "maros_meszaros.json").write_text(json.dumps(payload, indent=1) + "\n")


if __name__ == "__main__":
    main()
