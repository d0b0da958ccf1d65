"""A rule: how the next state follows from the present one and its image."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor


class Rule(ABC):
    """z_{k+1} from z_k and T(z_k). Holds the buffers of one run, so one instance serves one run.

    `carried` names the tensors that `advance` reads or replaces, where steps may be recorded (`iterate.replay`).
    """

    carried: ClassVar[tuple[str, ...] | None] = None

    @abstractmethod
    def advance(self, z: Tensor, image: Tensor) -> Tensor:
        """Return z_{k+1} from `z` = z_k and `image` = T(z_k), both (b, d).

        `image` stays valid through the next call of T (which may write into two buffers in turn): a rule copies what it
        keeps longer. `z` may be overwritten only where it is the rule's own buffer. Rows never mix.
        """

    def observe(self, residual: Tensor, steps: int) -> None:  # noqa: B027
        """Called at every check with the relative residuals (b,) of the last pair, `steps` steps after the last check.

        `residual` is not kept by the caller; rules without use for it do nothing.
        """

    def phase(self) -> object:
        """What decides, beside `carried`, which operations `advance` runs; hashable."""
        return None

    @abstractmethod
    def take(self, rows: Tensor) -> None:
        """Keep the samples `rows` (an index tensor into the present rows) only."""
