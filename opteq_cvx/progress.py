"""progress: a line about a long solve, `with oc.progress(): layer.solve(x)`. Nothing is shown without asking."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from opteq_cvx.iterate.watch import WATCH

EVERY = 0.1
"""Seconds between two updates of the line."""


@runtime_checkable
class Stream(Protocol):
    """What the line is written to."""

    def write(self, text: str, /) -> Any:
        """Append a text."""

    def flush(self) -> Any:
        """Show what was written."""


@contextmanager
def progress(*, delay: float = 1.0, file: Stream | None = None) -> Iterator[None]:
    """Show how far the solves inside the block are: steps, samples that are done, the worst residual.

    The line goes to the standard error stream and is wiped away at the end. Solves are not changed by it.

    Args:
        delay: seconds that a block runs before anything is shown.
        file: another text stream.
    """
    line = _Line(file or sys.stderr, time.monotonic() + delay)
    token = WATCH.set(line.watch)
    try:
        yield
    finally:
        WATCH.reset(token)
        line.wipe()


@dataclass(slots=True)
class _Line:
    """One line of a stream, rewritten in place."""

    file: Stream
    due: float
    width: int = 0

    def watch(self, step: int, alive: int, samples: int, residual: Tensor) -> None:
        """Show a check, where it is time for one."""
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + EVERY
        worst = float(residual.max()) if residual.numel() else 0.0
        self._write(f"step {step}: {samples - alive} of {samples} samples done, residual at most {worst:.1e}")

    def wipe(self) -> None:
        """Leave the line empty."""
        if self.width:
            self._write("")
            self.file.write("\r")
            self.file.flush()

    def _write(self, words: str) -> None:
        self.file.write(f"\r{words.ljust(self.width)}")
        self.file.flush()
        self.width = max(self.width, len(words))
