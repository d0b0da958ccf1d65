"""Run: a seed to its record, and the smallest program that fails as a seed does."""

import time
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import torch
import torch.fx.experimental.symbolic_shapes  # SymPy, which torch imports when first asked: no limit may fall into it

from tests.fuzz.check import SLOW, Outcome, examine
from tests.fuzz.program import make
from tests.fuzz.records import Record
from tests.fuzz.repeat import chosen
from tests.fuzz.source import Source, shrink

WARM, ENDLESS = 2, 1e6  # a program of 0.1 s, and seconds
GRADIENTS = 6  # one program in so many is differentiated, too


def run(seed: int, *, wild: bool = False, gradients: bool | None = None, limit: float = SLOW) -> Outcome:
    """The outcome of a seed."""
    wanted = seed % GRADIENTS == 0 if gradients is None else gradients
    source = Source(rng=np.random.default_rng(seed))
    out = examine(source, wild=wild, gradients=wanted, repeat=chosen(seed), limit=limit)
    out.seed = seed
    return out


@cache
def ready() -> None:
    """Import and compile what torch leaves to the first call of its transforms, before any limit runs."""
    torch.func.vmap(torch.func.jacrev(torch.sin))(torch.ones(2, 2))
    run(WARM, limit=ENDLESS)


@dataclass(frozen=True)
class Run:
    """A seed to its record, in one thread; `limit` is that of processor time for solving."""

    wild: bool = False
    commit: str = ""
    limit: float = SLOW

    def __call__(self, seed: int, *, text: bool = False) -> Record:
        torch.set_num_threads(1)
        ready()
        begin = time.process_time()
        out = asdict(run(seed, wild=self.wild, limit=self.limit))
        out.pop("choices")  # the seed replays them
        if not text:
            out.pop("text")
        record: Record = {"seed": out.pop("seed"), **out}
        record["seconds"] = round(record["seconds"], 4)
        record["spent"] = round(time.process_time() - begin, 3)
        record["commit"] = self.commit
        return record


def smallest(seed: int, *, wild: bool) -> int:
    """Shrink the choices of a failing seed."""
    first = run(seed, wild=wild)
    key = " ".join(first.note.split()[:3])

    def fails(choices: list[int]) -> bool:
        again = examine(Source(choices), wild=wild, gradients=seed % GRADIENTS == 0, repeat=chosen(seed))
        return again.verdict == first.verdict and " ".join(again.note.split()[:3]) == key

    choices = shrink(first.choices, fails)
    last = examine(Source(choices), wild=wild, gradients=seed % GRADIENTS == 0, repeat=chosen(seed))
    print(f"{first.verdict}: {first.note}\n{choices}\n{make(Source(choices), wild=wild).text}")
    print(f"{last.verdict}: {last.note}")
    return 0
