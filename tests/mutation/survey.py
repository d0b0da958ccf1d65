"""Which tests run a line, and how long each takes."""

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from coverage import Coverage


@dataclass(slots=True)
class Lines:
    """Tests by file (relative to the checkout) and line, and the seconds of each test."""

    at: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, path: str, first: int, last: int) -> list[str]:
        """The tests that run a line of the range, the fastest first; for a line run at import, those of its file."""
        lines = self.at.get(path, {})
        chosen: set[str] = set().union(*(lines.get(line, set()) for line in range(first, last + 1)))
        chosen = chosen or set().union(*lines.values())
        return sorted(chosen, key=lambda name: (self.seconds.get(name, 0.0), name))

    def write(self, path: Path) -> None:
        """As JSON."""
        at = {file: {str(line): sorted(names) for line, names in rows.items()} for file, rows in self.at.items()}
        path.write_text(json.dumps({"at": at, "seconds": self.seconds}))

    @staticmethod
    def read(path: Path) -> "Lines":
        """What `write` wrote."""
        found = json.loads(path.read_text())
        rows = {f: {int(line): set(names) for line, names in r.items()} for f, r in found["at"].items()}
        return Lines(rows, found["seconds"])


def survey(items: Sequence[pytest.Item], root: Path, folder: str) -> Lines:
    """Run each test once and record which lines of the folder it runs."""
    measured = Coverage(data_file=None, config_file=False, include=[f"{root}/opteq_cvx/{folder}/*"])
    seconds: dict[str, float] = {}
    measured.start()
    for item, following in zip(items, [*items[1:], None], strict=True):
        measured.switch_context(item.nodeid)
        begin = time.process_time()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        seconds[item.nodeid] = round(time.process_time() - begin, 4)
    measured.stop()
    at: dict[str, dict[int, set[str]]] = defaultdict(dict)
    data = measured.get_data()
    for path in data.measured_files():
        name = str(Path(path).relative_to(root))
        at[name] = {line: {c for c in names if c} for line, names in data.contexts_by_lineno(path).items()}
    return Lines(dict(at), seconds)
