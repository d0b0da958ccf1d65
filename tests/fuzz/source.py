"""Source: every choice a generator makes, as one list of integers that can be replayed and shrunk."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
LARGE = 1 << 16


class Source:
    """Choices from a list of integers, then from a generator; both exhausted, the simplest one (0).

    `record` holds every integer drawn, so `Source(record)` draws the same program again.
    """

    def __init__(self, choices: Sequence[int] = (), rng: np.random.Generator | None = None) -> None:
        self.choices, self.rng = list(choices), rng
        self.record: list[int] = []

    def pick(self, n: int) -> int:
        """An integer in [0, n); 0 is the simplest."""
        place = len(self.record)
        if place < len(self.choices):
            value = self.choices[place] % n
        else:
            value = int(self.rng.integers(n)) if self.rng is not None else 0
        self.record.append(value)
        return value

    def chance(self, percent: int) -> bool:
        """True so many times in a hundred; False is the simplest."""
        return self.pick(100) >= 100 - percent

    def choose(self, options: Sequence[T]) -> T:
        """One of the options; the first is the simplest."""
        return options[self.pick(len(options))]

    def numbers(self) -> np.random.Generator:
        """A generator for values, which shrinking replaces as a whole."""
        return np.random.default_rng(self.pick(LARGE))

    def normal(self, *shape: int) -> np.ndarray:
        """Normal entries; a scalar array without arguments."""
        return np.asarray(self.numbers().normal(size=shape))

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Uniform entries."""
        return np.asarray(self.numbers().uniform(low, high, size=shape))


def shrink(choices: Sequence[int], fails: Callable[[list[int]], bool], *, budget: int = 400) -> list[int]:
    """A shorter, smaller list on which `fails` still holds: chunks deleted, then zeroed, then entries halved."""
    best, calls = list(choices), 0

    def better(candidate: list[int]) -> bool:
        nonlocal best, calls
        calls += 1
        if calls <= budget and fails(candidate):
            best = candidate
            return True
        return False

    size = max(1, len(best) // 2)
    while size and calls < budget:
        start = 0
        while start < len(best) and calls < budget:
            rest = best[:start] + best[start + size :]
            zeros = best[:start] + [0] * len(best[start : start + size]) + best[start + size :]
            if better(rest):
                continue
            if any(best[start : start + size]):
                better(zeros)
            start += size
        size //= 2
    return best
