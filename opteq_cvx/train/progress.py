"""A progress bar on a terminal, and silence everywhere else."""

from types import TracebackType
from typing import TYPE_CHECKING

from opteq_cvx.extras import require

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class Bar:
    """One line that shows step, time left and the latest numbers of a run; disabled where nobody watches.

    Args:
        total: steps of the run.
        done: steps done before it began (a resumed run).
        enabled: False on other ranks and where no progress is wanted.
    """

    def __init__(self, total: int, *, done: int = 0, enabled: bool = True, console: "Console | None" = None) -> None:
        rich = require("rich.progress", extra="train")
        columns = (
            rich.TextColumn("epoch {task.fields[epoch]}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TimeRemainingColumn(),
            rich.TextColumn("{task.fields[note]}"),
        )
        console = console or require("rich.console", extra="train").Console(stderr=True)
        shown = enabled and console.is_terminal
        self._bar: Progress = rich.Progress(*columns, console=console, disable=not shown)
        self._task = self._bar.add_task("train", total=total, completed=done, epoch="", note="")

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, epoch: int, note: str) -> None:
        """One step is done."""
        self._bar.update(self._task, advance=1, epoch=str(epoch), note=note)
