"""What an iteration is: a driver that takes a map T to a fixed point, sample by sample."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Map = Callable[[Tensor], Tensor]
"""T on the rows it was restricted to: (b, d) → (b, d)."""

Progress = Callable[[int, Tensor], None]
"""progress(step, residual) is called at every check with the steps so far and the relative residuals (B,)."""

Restrict = Callable[[Tensor | None], Map]
"""restrict(rows) is T for the samples `rows` (an index tensor), restrict(None) for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """When a sample is done: ‖z − T(z)‖ ≤ tolerance · margin · max(‖z‖, 1) (margin (B,) or (1,): a certified modulus).

    No sample is asked for less than four units of rounding: tolerance · margin is raised to 4 eps of the dtype.
    `max_steps` (at least 1) counts evaluations of T; the first check is made after one, then every `check_every`.
    """

    tolerance: float
    max_steps: int
    check_every: int = 5
    margin: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Iterate:
    """The result: best state (B, d), its residual ‖z − T(z)‖ / max(‖z‖, 1) (B,), steps (B,), converged and finite flags (B,)."""

    z: Tensor
    residual: Tensor
    steps: Tensor
    converged: Tensor
    finite: Tensor
    history: Tensor | None = None  # (checks, B) residuals, when asked for


class Iteration(ABC):
    """A driver; instances are frozen dataclasses of options, keyword-only."""

    @abstractmethod
    def run(
        self,
        restrict: Restrict,
        z0: Tensor,
        stop: Stop,
        *,
        history: bool = False,
        progress: Progress | None = None,
    ) -> Iterate:
        """Iterate from z0 (B, d) without autograd; converged samples freeze and, on the CPU, are compacted away."""
