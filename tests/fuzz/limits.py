"""A limit of processor time for a part of the work, that holds wherever Python runs."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class TimeUpError(Exception):
    """A part of the work took longer than its limit."""


@contextmanager
def alarm(seconds: float, what: str) -> Iterator[None]:
    """Raise TimeUpError after so many seconds of this process's time; limits may be nested, the nearest counts."""

    def ring(*_: object) -> None:
        raise TimeUpError(f"{what} took more than {seconds:.0f} s")

    outer, before = signal.getitimer(signal.ITIMER_PROF)[0], signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        left = signal.setitimer(signal.ITIMER_PROF, 0)[0]
        signal.signal(signal.SIGPROF, before)
        if outer:
            signal.setitimer(signal.ITIMER_PROF, max(outer - (seconds - left), 1e-3))
