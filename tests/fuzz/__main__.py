"""`python -m tests.fuzz --count N --seed S`: classify N random programs, print the table, write JSON."""

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from tests.fuzz.check import CLASSES, Outcome, examine
from tests.fuzz.program import make
from tests.fuzz.source import Source, shrink

GRADIENTS = 6  # one program in so many is differentiated, too


def run(seed: int, *, wild: bool = False, gradients: bool | None = None) -> Outcome:
    """The outcome of a seed."""
    wanted = seed % GRADIENTS == 0 if gradients is None else gradients
    out = examine(Source(rng=np.random.default_rng(seed)), wild=wild, gradients=wanted)
    out.seed = seed
    return out


def table(outcomes: Sequence[Outcome]) -> str:
    """Counts by splitting and by atom."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for o in outcomes:
        rows["all"][o.verdict] += 1
        rows[f"splitting: {o.splitting}"][o.verdict] += 1
        rows[f"kind: {o.kind or '-'}"][o.verdict] += 1
        for atom in o.atoms:
            rows[f"atom: {atom}"][o.verdict] += 1
        if o.gradient:
            rows[f"gradient: {o.gradient.split(':')[0]}"][o.verdict] += 1
    width = max(map(len, rows))
    lines = [" ".join([" " * width, *(f"{c:>13}" for c in CLASSES)])]
    order = sorted(rows, key=lambda r: (r != "all", r))
    return "\n".join([*lines, *(" ".join([r.ljust(width), *(f"{rows[r][c]:>13}" for c in CLASSES)]) for r in order)])


def main(arguments: Sequence[str]) -> int:
    """Run, print, write; the exit status says whether something was wrong or crashed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    parser.add_argument("--wild", action="store_true", help="data scaled over 1e-6 … 1e6")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the outcomes")
    parser.add_argument("--shrink", type=int, default=None, help="print the smallest program that fails like this seed")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.shrink is not None:
        return smallest(options.shrink, wild=options.wild)
    outcomes, begin = [], time.perf_counter()
    for seed in range(options.seed, options.seed + options.count):
        out = run(seed, wild=options.wild)
        outcomes.append(out)
        if out.verdict != "solved":
            print(f"seed {seed} [{out.splitting}] {out.verdict}: {out.note}", flush=True)
    print(table(outcomes))
    print(f"{len(outcomes)} programs, {time.perf_counter() - begin:.0f} s")
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(o) for o in outcomes], indent=0))
    return int(any(o.verdict in ("wrong", "crashed") for o in outcomes))


def smallest(seed: int, *, wild: bool) -> int:
    """Shrink the choices of a failing seed."""
    first = run(seed, wild=wild)
    key = " ".join(first.note.split()[:3])

    def fails(choices: list[int]) -> bool:
        again = examine(Source(choices), wild=wild, gradients=seed % GRADIENTS == 0)
        return again.verdict == first.verdict and " ".join(again.note.split()[:3]) == key

    choices = shrink(first.choices, fails)
    last = examine(Source(choices), wild=wild, gradients=seed % GRADIENTS == 0)
    print(f"{first.verdict}: {first.note}\n{choices}\n{make(Source(choices), wild=wild).text}")
    print(f"{last.verdict}: {last.note}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
