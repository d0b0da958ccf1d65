"""`python -m tests.mutation --count N --seed S`: N faults drawn at random, each against the tests that run its line.

A mutant is *killed* when one of these tests fails or takes too long. A survivor asks for a test, or for the reason
why nobody could notice it (`equivalent`): they are printed with their place to be looked at.
"""

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutation.operators import Mutant, mutants
from tests.mutation.run import HOMES, ROOT, Lines, checkout, survey, verdict


@dataclass(frozen=True, slots=True)
class Record:
    """One mutant and what became of it: the verdict, the test that noticed, how many tests run its line."""

    folder: str
    place: str
    change: str
    verdict: str
    by: str
    tests: int
    seconds: float


def draw(folder: str, count: int, seed: int) -> list[tuple[str, Mutant]]:
    """`count` mutants of the folder's modules: the lines are drawn evenly, then one fault of each line."""
    known: dict[tuple[str, int], list[Mutant]] = {}
    for path in sorted((ROOT / "opteq_cvx" / folder).glob("*.py")):
        for mutant in mutants(path.read_text()):
            known.setdefault((str(path.relative_to(ROOT)), mutant.first), []).append(mutant)
    chooser = random.Random(seed)
    places = chooser.sample(sorted(known), min(count, len(known)))
    return [(path, chooser.choice(known[path, line])) for path, line in places]


def main(arguments: Sequence[str]) -> int:
    """Survey, run, print; 1 when a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--folders", nargs="+", default=list(HOMES), choices=HOMES, help="of the package")
    parser.add_argument("--count", type=int, default=80, help="mutants of each folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the outcomes")
    parser.add_argument("--lines", type=Path, default=None, help="folder that keeps which test runs which line")
    options = parser.parse_args(arguments)
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as scratch:
        copy = checkout(Path(scratch))
        for folder in options.folders:
            known = None if options.lines is None else options.lines / f"{folder}.json"
            lines = Lines.read(known) if known is not None and known.exists() else survey(copy, folder)
            if known is not None:
                lines.dump(known)
            for path, mutant in draw(folder, options.count, options.seed):
                tests = lines.of(path, mutant.first, mutant.last)
                word, by, seconds = verdict(copy, path, mutant.source, tests, lines)
                place = f"{path}:{mutant.first}"
                change = f"{mutant.kind}: {mutant.before}  ->  {mutant.after}"
                records.append(Record(folder, place, change, word, by, len(tests), round(seconds, 1)))
                print(f"{word:8} {seconds:6.1f} s  {place}  {change}", flush=True)
                if options.out is not None:
                    options.out.write_text(json.dumps([asdict(r) for r in records], indent=1) + "\n")
    for folder in options.folders:
        print(folder, dict(Counter(r.verdict for r in records if r.folder == folder)))
    return int(any(r.verdict in ("survived", "no test") for r in records))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
