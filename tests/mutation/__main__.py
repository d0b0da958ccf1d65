"""`python -m tests.mutation --count N --seed S`: N faults drawn at random, each against the tests that run its line.

A mutant is *killed* when one of these tests fails or takes too long. A survivor asks for a test, or for the reason
why nobody could notice it (`equivalent`): it is printed with its place, to be looked at.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.mutation.operators import Mutant, mutants
from tests.mutation.run import QUIET, ROOT, Driver, Record

HOMES = {
    "atoms": ("tests/atoms",),
    "frontend": (
        "tests/frontend",
        "tests/ties",
        "tests/atoms/test_level_set.py",
        "tests/atoms/test_epigraph.py",
        "tests/declare/test_activation.py",
        "tests/declare/test_convolution.py",
    ),
}
"""The tests of a folder of the package."""


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
    """Draw, run, print; 1 when a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--folder", default="frontend", choices=HOMES, help="of the package")
    parser.add_argument("--tests", nargs="+", default=None, help="tests to ask, by default those of the folder")
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the outcomes")
    parser.add_argument("--lines", type=Path, default=None, help="file that keeps which test runs which line")
    options = parser.parse_args(arguments)
    records: list[Record] = []

    def tell(record: Record) -> None:
        records.append(record)
        print(f"{record.verdict:8} {record.seconds:6.1f} s  {record.place}  {record.change}", flush=True)
        if options.out is not None:
            options.out.write_text(json.dumps([asdict(r) for r in records], indent=1) + "\n")

    driver = Driver(options.folder, draw(options.folder, options.count, options.seed), options.lines, tell)
    code = pytest.main([*QUIET, *(options.tests or HOMES[options.folder])], plugins=[driver])
    print(dict(Counter(r.verdict for r in records)))
    return int(code not in (0, 5) or any(r.verdict in ("survived", "no test") for r in records))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
