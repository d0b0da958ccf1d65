"""record: collect the statistics of plain calls, `with oc.record() as log: layer(x)`."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from opteq_cvx.solution import Stats, Statuses


@dataclass(frozen=True, slots=True)
class Entry:
    """One solve: the statuses and statistics of its samples."""

    status: Statuses
    stats: Stats


@dataclass(frozen=True, slots=True)
class Log:
    """The solves recorded so far, in order."""

    entries: list[Entry] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)


_ACTIVE: ContextVar[tuple[Log, ...]] = ContextVar("opteq_record", default=())


@contextmanager
def record() -> Iterator[Log]:
    """Collect an Entry for every solve made inside the block, in this thread."""
    log = Log()
    token = _ACTIVE.set((*_ACTIVE.get(), log))
    try:
        yield log
    finally:
        _ACTIVE.reset(token)


def recording() -> bool:
    """Whether somebody collects the statistics of plain calls in this thread."""
    return bool(_ACTIVE.get())


def note(status: Statuses, stats: Stats) -> None:
    """Append a solve to every active log."""
    for log in _ACTIVE.get():
        log.entries.append(Entry(status, stats))
