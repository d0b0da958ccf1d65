"""Which tests run a line, and what they say when the line is changed; always in a copy of the checkout."""

import json
import os
import shutil
import sqlite3
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from xml.etree import ElementTree

import pytest
from coverage.numbits import numbits_to_nums

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "opteq_cvx",
    "tests",
    "problems",
    "notebooks",
    "docs",
    "setup.cfg",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
)
PYTEST = ("-q", "-x", "--no-header", "-p", "no:cacheprovider", "-p", "no:randomly")
HOMES = {
    "atoms": ("tests/atoms",),
    "frontend": ("tests/frontend", "tests/atoms/test_level_set.py", "tests/atoms/test_epigraph.py", "tests/ties"),
}
"""The tests of a folder of the package."""
SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(
    ["torch", "cvxpy", "pytest", "hypothesis", "beartype", "jaxtyping", "scipy.sparse.linalg"]
)
SLOWER = 5.0  # a mutant may take so many times what its tests take without a fault,
START = 60.0  # and so many seconds to start
SETTINGS = "[run]\nsource = opteq_cvx\nrelative_files = True\ndata_file = {}\n"


@dataclass(slots=True)
class Lines:
    """Tests by file and line: who runs a line, and how long each test takes."""

    at: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def dump(self, path: Path) -> None:
        """Write the survey, so that the next run need not repeat it."""
        at = {file: {str(line): sorted(names) for line, names in rows.items()} for file, rows in self.at.items()}
        path.write_text(json.dumps({"at": at, "seconds": self.seconds}))

    @staticmethod
    def read(path: Path) -> "Lines":
        """What `dump` wrote."""
        found = json.loads(path.read_text())
        rows = {f: {int(line): set(names) for line, names in r.items()} for f, r in found["at"].items()}
        return Lines(rows, found["seconds"])

    def of(self, path: str, first: int, last: int) -> list[str]:
        """The tests that run a line of the range, the fastest first; for a line run at import, those of its file."""
        lines = self.at.get(path, {})
        chosen: set[str] = set().union(*(lines.get(line, set()) for line in range(first, last + 1)))
        chosen = chosen or set().union(*lines.values())
        return sorted(chosen, key=lambda name: (self.seconds.get(name, 0.0), name))


def checkout(to: Path) -> Path:
    """A copy that mutants may change."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        else:
            shutil.copy(ROOT / name, to / name)
    return to


def survey(copy: Path, folder: str) -> Lines:
    """Run the tests of a folder once, and record which of them runs which line.

    Raises:
        RuntimeError: a test fails without any fault.
    """
    data, settings, report = copy / f".lines-{folder}", copy / f"lines-{folder}.cfg", copy / f"times-{folder}.xml"
    settings.write_text(SETTINGS.format(data))
    options = [
        "--cov=opteq_cvx",
        f"--cov-config={settings}",
        "--cov-context=test",
        "--cov-report=",
        f"--junitxml={report}",
    ]
    code, words = _pytest(copy, [*options, "-o", "junit_family=xunit1", *HOMES[folder]], None)
    if code:
        raise RuntimeError(f"tests of {folder} fail without a fault:\n{words[-4000:]}")
    out: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    query = (
        "select file.path, context.context, numbits from line_bits "
        "join file on file.id = file_id join context on context.id = context_id where context.context like '%|run'"
    )
    with sqlite3.connect(data) as base:
        for path, context, bits in base.execute(query):
            for line in numbits_to_nums(bits):
                out[path][line].add(context.removesuffix("|run"))
    return Lines(dict(out), _seconds(report))


def verdict(copy: Path, path: str, source: str, tests: Sequence[str], lines: Lines) -> tuple[str, str, float]:
    """("killed", "timeout", "survived" or "no test", the failing test, seconds) with `source` at `path`."""
    if not tests:
        return "no test", "", 0.0
    begin, module = time.perf_counter(), copy / path
    kept, stamp = module.read_text(), module.stat()
    module.write_text(source)
    limit = START + SLOWER * sum(lines.seconds.get(name, 0.0) for name in tests)
    chosen = copy / "chosen.txt"
    chosen.write_text("\n".join(tests))
    try:
        code, words = _pytest(copy, [f"@{chosen.name}"], limit)
    finally:
        module.write_text(kept)
        os.utime(module, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # its compiled form stays valid
    taken = time.perf_counter() - begin
    if code is None:
        return "timeout", "", taken
    if code == 0:
        return "survived", "", taken
    failed = [line for line in words.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "killed", failed[0] if failed else words[-300:], taken


def _pytest(copy: Path, arguments: Sequence[str], limit: float | None) -> tuple[int | None, str]:
    """(exit status, output) of pytest in the copy, in a process that has the libraries already; None: past the limit.

    Only the run without a limit, that of the unchanged package, leaves compiled modules.
    """
    log = copy / "log.txt"
    process = SERVER.Process(target=_child, args=(copy, log, [*PYTEST, *arguments], limit is None))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        return None, ""
    return process.exitcode, log.read_text()


def _child(copy: Path, log: Path, arguments: list[str], keep: bool) -> None:
    os.chdir(copy)
    sys.path[0:0] = [str(copy)]
    sys.dont_write_bytecode = not keep
    for name in [n for n in sys.modules if n.split(".")[0] in ("tests", "opteq_cvx")]:
        del sys.modules[name]  # those of the checkout
    out = log.open("w")
    os.dup2(out.fileno(), 1)
    os.dup2(out.fileno(), 2)
    code = pytest.main(arguments)
    sys.stdout.flush()
    os._exit(int(code))


def _seconds(report: Path) -> dict[str, float]:
    """Seconds by test, from pytest's XML report."""
    out = {}
    for case in ElementTree.parse(report).iter("testcase"):
        out[f"{case.get('file')}::{case.get('name')}"] = float(case.get("time") or 0.0)
    return out
