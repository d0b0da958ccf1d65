"""What every benchmark shares: timing (median and spread), the machine, tables, JSON. Times are never asserted."""

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.chart import by_batch, draw

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: who, on what, how long (milliseconds), how accurate against an exact solution."""

    workload: str
    who: str
    size: str
    batch: int
    dtype: str
    median_ms: float
    low_ms: float
    high_ms: float
    value_error: float
    gradient_error: float
    note: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


def timed(
    run: Callable[[], object], *, repeats: int = 15, warm: int = 2, budget_s: float = 30.0
) -> tuple[float, float, float]:
    """(median, 10th and 90th percentile) of `run` in milliseconds; fewer repeats where they would exceed the budget."""
    for _ in range(warm):
        run()
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < repeats and (len(times) < 3 or time.perf_counter() - started < budget_s):
        begin = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(times)), float(np.percentile(times, 10)), float(np.percentile(times, 90))


def raced(
    runs: Sequence[Callable[[], object]], counts: Sequence[int], rounds: int = 5
) -> list[tuple[float, float, float]]:
    """Times of several contenders as `timed` gives them, measured in turns so that they share the machine's moods.

    In each of `rounds` rounds contender i runs counts[i] times. One untimed run of each comes first.
    """
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(rounds):
        for run, count, seen in zip(runs, counts, times, strict=True):
            for _ in range(count):
                begin = time.perf_counter()
                run()
                seen.append(1e3 * (time.perf_counter() - begin))
    return [(float(np.median(t)), float(np.percentile(t, 10)), float(np.percentile(t, 90))) for t in times]


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    names = ("torch", "cvxpy", "cvxpylayers", "diffcp", "clarabel", "numpy", "qpth", "proxsuite", "torchdeq")
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "versions": found,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, each with its ratio to the fastest of its group."""
    lines = [
        "| workload | size | batch | dtype | who | median ms (p10–p90) | times slower "
        "| value error | gradient error | note |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peers = [
            r for r in rows if (r.workload, r.size, r.batch, r.dtype) == (row.workload, row.size, row.batch, row.dtype)
        ]
        ratio = row.median_ms / min(r.median_ms for r in peers)
        spread = f"{row.median_ms:.3g} ({row.low_ms:.3g}–{row.high_ms:.3g})"
        errors = (f"{row.value_error:.1e}", f"{row.gradient_error:.1e}")
        what = (row.workload, row.size, str(row.batch), row.dtype, row.who)
        lines.append(f"| {' | '.join((*what, spread, f'{ratio:.1f}', *errors, row.note))} |")
    return "\n".join(lines)


def publish(name: str, rows: Sequence[Row]) -> None:
    """Print the table and write it, with the machine, to results/NAME.md and NAME.json, and a picture NAME.png."""
    RESULTS.mkdir(exist_ok=True)
    where = machine()
    text = table(rows)
    head = f"{where['processor']}, {where['threads']} thread(s), GPU {where['gpu']}, torch {where['versions']['torch']}"
    (RESULTS / f"{name}.md").write_text(f"# {name}\n\n{head}\n\n![times]({name}.png)\n\n{text}\n")
    payload = {"machine": where, "rows": [asdict(r) for r in rows]}
    (RESULTS / f"{name}.json").write_text(json.dumps(payload, indent=1) + "\n")
    draw(by_batch(rows), RESULTS / f"{name}.png")
    print(f"{head}\n\n{text}")
