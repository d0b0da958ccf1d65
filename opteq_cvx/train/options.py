"""Options of a training run, and learning-rate schedules as pure functions of the step."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from typing_extensions import override

from opteq_cvx.errors import InputError, message


class Schedule(ABC):
    """A learning rate for each step; a function of the step alone: a resumed run needs no schedule state."""

    @abstractmethod
    def rate(self, step: int, total: int) -> float:
        """The rate of step 0 ≤ `step` < `total`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine(Schedule):
    """Linear warm-up over a fraction of the run, then half a cosine from `peak` to `floor`.

    Source: I. Loshchilov, F. Hutter, SGDR: SGD with Warm Restarts, ICLR 2017, eq. (5).
    """

    peak: float = 3e-3
    warmup: float = 0.05
    floor: float = 0.0

    @override
    def rate(self, step: int, total: int) -> float:
        rise = round(self.warmup * total)
        if step < rise:
            return self.peak * (step + 1) / rise
        return _half_cosine(self.peak, self.floor, (step - rise) / max(total - rise, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class OneCycle(Schedule):
    """Half a cosine from `peak / start` up to `peak`, then down to `peak / (start · end)`; momentum stays.

    Source: L. Smith, N. Topin, Super-Convergence, arXiv 1708.07120, section 3; form of torch's OneCycleLR.
    """

    peak: float = 3e-3
    rise: float = 0.3
    start: float = 25.0
    end: float = 1e4

    @override
    def rate(self, step: int, total: int) -> float:
        first, low = self.peak / self.start, self.peak / self.start / self.end
        top = self.rise * total - 1
        if step <= top:
            return _half_cosine(first, self.peak, step / top) if top > 0 else self.peak
        return _half_cosine(self.peak, low, (step - top) / max(total - 1 - top, 1))


def _half_cosine(begin: float, end: float, part: float) -> float:
    """From `begin` at part 0 to `end` at part 1."""
    return end + (begin - end) * (1 + math.cos(math.pi * min(part, 1.0))) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What a run does: AdamW on the cross-entropy, the rate given by `schedule`.

    Weight decay acts on matrices only, not on biases and scalars such as a prior's strength. Samples that are images
    (C, H, W) = `image`, flattened, are augmented in training: moved by up to `shift` pixels in each direction, over
    zeros, and with `flip` mirrored left to right every other time.
    """

    epochs: int = 20
    batch_size: int = 64
    schedule: Schedule = field(default_factory=Cosine)
    weight_decay: float = 1e-2
    clip: float = 1.0
    seed: int = 0
    shift: int = 0
    flip: bool = False
    image: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        for name, value, low in (("epochs", self.epochs, 1), ("batch_size", self.batch_size, 1)):
            if value < low:
                raise InputError(message(f"{name} is {value}", f"{name} ≥ {low}", f"raise {name}"))
        if self.shift < 0:
            raise InputError(message(f"shift is {self.shift}", "shift ≥ 0", "raise shift"))
        if (self.shift or self.flip) and self.image is None:
            found = "augmentation of samples that are not images"
            raise InputError(message(found, "image=(C, H, W)", "drop shift and flip, or give the shape"))
        for name, number in (("clip", self.clip), ("weight_decay", self.weight_decay)):
            if not (math.isfinite(number) and number >= 0):
                raise InputError(message(f"{name} is {number}", f"a finite {name} ≥ 0", f"correct {name}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """Where a run happens, in Lightning Fabric's words."""

    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"
