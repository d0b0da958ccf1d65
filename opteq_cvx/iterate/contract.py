"""What an iteration is: a driver that takes a map T to a fixed point, sample by sample."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from opteq_cvx.descent import Map

Progress = Callable[[int, Tensor], None]
"""progress(step, residual) is called at every check with the steps so far and the relative residuals (B,)."""

Measure = Callable[[Tensor, Tensor], Tensor]
"""measure(z, T(z)) is the error (b,) that is held against the tolerance in place of ‖z − T(z)‖ / max(‖z‖, 1)."""

Gauge = Callable[[Tensor | None], Measure]
"""gauge(rows) is the measure for the samples `rows`, as `Restrict` for the map."""

Restrict = Callable[[Tensor | None], Map]
"""restrict(rows) is T for the samples `rows` (an index tensor), restrict(None) for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """When a sample is done: ‖z − T(z)‖ ≤ tolerance · margin · max(‖z‖, 1) (margin (B,) or (1,): a certified modulus).

    No sample is asked for less than four units of rounding: tolerance · margin is raised to 4 eps of the dtype.
    With a `gauge`, its measure takes the place of the relative residual everywhere, in the result too.
    `rate` is a certified rate of contraction of T, 1 where none is known.
    `max_steps` (at least 1) counts evaluations of T; the first check is made after one, then every `check_every`.
    """

    tolerance: float
    max_steps: int
    check_every: int = 5
    margin: Tensor | None = None
    gauge: Gauge | None = None
    rate: float = 1.0


@dataclass(frozen=True, slots=True)
class Iterate:
    """Best state (B, d), its residual ‖z − T(z)‖ / max(‖z‖, 1) (B,), steps (B,), flags converged and finite (B,)."""

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
