"""Metrics: running means of one epoch, and a file with one JSON object a line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Running:
    """Sums weighted by the number of samples; `means()` divides. Its state is JSON."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        self.sums: dict[str, float] = dict(sums or {})

    def add(self, count: int, **means: float) -> None:
        """Add the means of `count` samples."""
        self.sums["count"] = self.sums.get("count", 0.0) + count
        for name, value in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * count

    def means(self) -> dict[str, float]:
        """The mean of each quantity over all samples added."""
        count = self.sums.get("count", 0.0)
        return {k: v / count for k, v in self.sums.items() if k != "count"} if count else {}


class MetricsFile:
    """`metrics.jsonl`: one row per epoch, in order; rows of epochs that a resumed run repeats are removed."""

    def __init__(self, path: Path, *, keep_epochs: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(path) if row["epoch"] < keep_epochs] if path.exists() else []
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row and flush it."""
        with self.path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
