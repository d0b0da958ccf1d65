"""Ctrl-C as a request: the run ends after the current step, with a checkpoint; a second ends it at once."""

import signal
import threading
from types import FrameType, TracebackType


class Interrupt:
    """A context in which the first SIGINT sets `requested`; the previous handler returns afterwards.

    Outside the main thread Python takes no handlers, and the context does nothing.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "Interrupt":
        self._installed = threading.current_thread() is threading.main_thread()
        if self._installed:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Note the first request; raise on the second."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
