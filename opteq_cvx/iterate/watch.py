"""Who watches the iterations of this thread: called at every check, without influence on them."""

from collections.abc import Callable
from contextvars import ContextVar

from torch import Tensor

Watch = Callable[[int, int, int, Tensor], None]
"""watch(step, open, samples, residual): samples of the batch still above their tolerance, and the relative residuals
of those in the loop."""

WATCH: ContextVar[Watch | None] = ContextVar("opteq_watch", default=None)
