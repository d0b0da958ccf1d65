"""What the tests say of a mutant: in a fork of a pytest that has collected them, or in a fresh process."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mutation.operators import Mutant
from tests.mutation.patch import patch
from tests.mutation.survey import Lines, survey

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("opteq_cvx", "tests", "problems", "docs", "setup.cfg", "pyproject.toml", "README.md", "CHANGELOG.md")
SLOWER, START = 5.0, 20.0  # CPU seconds for a mutant: so many times those of its tests without it, and so many more
QUIET = ("-q", "--no-header", "-p", "no:cacheprovider")


@dataclass(frozen=True, slots=True)
class Record:
    """A mutant and what became of it: "killed", "timeout", "survived" or "no test", and by which test."""

    place: str
    change: str
    verdict: str
    by: str
    tests: int
    seconds: float


class Driver:
    """A plugin of pytest that runs the collected tests against each mutant in place of running them once."""

    def __init__(
        self, folder: str, drawn: Sequence[tuple[str, Mutant]], kept: Path | None, tell: Callable[[Record], None]
    ) -> None:
        self.folder, self.drawn, self.kept, self.tell = folder, drawn, kept, tell
        self.failed = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Survey, then the mutants one by one."""
        lines = self._lines(session.items)
        items = {item.nodeid: item for item in session.items}
        for path, mutant in self.drawn:
            tests = [name for name in lines.of(path, mutant.first, mutant.last) if name in items]
            begin = time.perf_counter()
            limit = START + SLOWER * sum(lines.seconds.get(name, 0.0) for name in tests)
            verdict, by = self._examined(path, mutant, [items[name] for name in tests], limit)
            place, change = f"{path}:{mutant.first}", f"{mutant.kind}: {mutant.before}  ->  {mutant.after}"
            self.tell(Record(place, change, verdict, by, len(tests), round(time.perf_counter() - begin, 1)))
        return True

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the first failure."""
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def _lines(self, items: Sequence[pytest.Item]) -> Lines:
        """The survey, in a fork, so that nothing here has run a test before."""
        if self.kept is not None and self.kept.exists():
            return Lines.read(self.kept)
        with tempfile.TemporaryDirectory() as scratch:
            out = self.kept or Path(scratch) / "lines.json"

            def work() -> int:
                survey(items, ROOT, self.folder).write(out)
                print(self.failed)
                return 3 if self.failed else 0

            code, words = _forked(work, None)
            if code != 0:
                out.unlink(missing_ok=True)
                raise RuntimeError(f"{words.strip()} fails without a fault: leave it out of --tests")
            return Lines.read(out)

    def _examined(self, path: str, mutant: Mutant, items: Sequence[pytest.Item], limit: float) -> tuple[str, str]:
        if not items:
            return "no test", ""
        original = (ROOT / path).read_text()

        def work() -> int:
            if not patch(ROOT / path, original, mutant.tree):
                return 4
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.failed:
                    print(self.failed)
                    return 3
            return 0

        code, words = _forked(work, limit)
        if code in (0, 4):  # what ran at import, or is cached from it, is new in a fresh process only
            return fresh(path, mutant, [item.nodeid for item in items], limit)
        return ("killed" if code == 3 else "timeout" if code == -signal.SIGPROF else "killed"), words.strip()


def _forked(work: Callable[[], int], limit: float | None) -> tuple[int, str]:
    """(exit status, output) of `work` in a fork; it may take `limit` seconds of CPU."""
    with tempfile.TemporaryFile("w+") as log:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            code = 5
            with contextlib.suppress(BaseException):
                if limit is not None:
                    signal.setitimer(signal.ITIMER_PROF, limit)
                with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
                    with contextlib.redirect_stdout(log):
                        code = work()
                    log.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        log.seek(0)
        return os.waitstatus_to_exitcode(status), log.read()


def fresh(path: str, mutant: Mutant, tests: Sequence[str], limit: float) -> tuple[str, str]:
    """The verdict of a process that imports the mutant, in a copy of the checkout."""
    with _copy() as copy:
        (copy / path).write_text(mutant.source)
        chosen = copy / "chosen.txt"
        chosen.write_text("\n".join(tests))
        command = [sys.executable, "-m", "pytest", *QUIET, "-x", f"@{chosen.name}"]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        done = subprocess.run(
            ["bash", "-c", f"ulimit -t {int(limit + START)}; exec \"$@\"", "bash", *command],
            cwd=copy, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode == 0:
        return "survived", ""
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode < 0:
        return "timeout", ""
    return "killed", failed[0] if failed else (done.stdout + done.stderr)[-200:]


@contextlib.contextmanager
def _copy() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, Path(scratch) / name, ignore=shutil.ignore_patterns("results"))
            else:
                shutil.copy2(ROOT / name, Path(scratch) / name)
        yield Path(scratch)
