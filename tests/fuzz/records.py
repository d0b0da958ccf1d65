"""Records: one JSON line a program, appended as it is done; the last line of a seed counts."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""seed, verdict (one of `CLASSES`), note, kind, splitting, asked, atoms, steps, seconds, gradient, commit."""

CLASSES = ("solved", "refused", "not converged", "wrong", "crashed", "slow", "skipped")
BAD = ("refused", "wrong", "crashed")


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Write one line at the end, whole: a process that is stopped leaves none that is cut."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def load(path: Path) -> list[Record]:
    """All records in order; a last line that was cut is left out."""
    if not path.exists():
        return []
    out = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            out.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return out


def latest(records: Iterable[Record]) -> list[Record]:
    """The last record of each seed, by seed."""
    last = {r["seed"]: r for r in records}
    return [last[seed] for seed in sorted(last)]


def mend(path: Path) -> None:
    """End a last line that was cut, so that the next one begins a line of its own."""
    if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        path.write_bytes(text + b"\n")
