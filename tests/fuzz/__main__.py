"""Random programs against an exact solver: run seeds, or go on with a run; print the table.

`python -m tests.fuzz --count N --seed S --out F` appends one JSON line a program to F and skips seeds that have one.
`--again wrong crashed` runs those seeds once more; the table counts the last record of each seed.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.driver import drive, pending, shard
from tests.fuzz.page import write
from tests.fuzz.records import BAD, CLASSES, Record, load
from tests.fuzz.run import Run, smallest
from tests.fuzz.table import table


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200, help="of programs")
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    parser.add_argument("--wild", action="store_true", help="data scaled over 1e-6 … 1e6")
    parser.add_argument(
        "--out", type=Path, default=None, help="file of JSON lines, one a program; goes on if it exists"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one thread")
    parser.add_argument("--shard", default="1/1", help="i/n: every n-th seed from the i-th, to run parts elsewhere")
    parser.add_argument("--again", nargs="*", choices=CLASSES, default=[], help="run seeds with these verdicts again")
    parser.add_argument("--minutes", type=float, default=None, help="begin no program after so many")
    parser.add_argument(
        "--table", type=Path, nargs="+", default=None, help="print the table of these files, run nothing"
    )
    parser.add_argument("--markdown", action="store_true", help="the table in Markdown")
    parser.add_argument("--page", type=Path, default=None, help="with --table: write the tables into this page instead")
    parser.add_argument("--show", type=int, default=None, help="print this seed's program and what became of it")
    parser.add_argument("--shrink", type=int, default=None, help="print the smallest program that fails like this seed")
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """Run, print, write; the exit status says whether something was refused, wrong or crashed."""
    options = arguments(given)
    if options.table is not None:
        found = [r for path in options.table for r in load(path)]
        if options.page is not None:
            write(options.page, found)
        else:
            print(table(found, markdown=options.markdown))
        return 0
    examine = Run(wild=options.wild, commit=commit())
    if options.shrink is not None:
        return smallest(options.shrink, wild=options.wild)
    if options.show is not None:
        record = examine(options.show, text=True)
        print(record.pop("text"))
        print(record)
        return 0
    seeds = shard(range(options.seed, options.seed + options.count), options.shard)
    left, end = pending(seeds, options.out, options.again), None
    if options.minutes is not None:
        end = time.monotonic() + 60.0 * options.minutes
    print(f"{len(seeds)} programs, {len(left)} to run", flush=True)
    records = drive(examine, left, workers=options.workers, out=options.out, until=end, report=tell)
    whole = load(options.out) if options.out is not None else records
    print(table(whole, markdown=options.markdown))
    return int(any(r["verdict"] in BAD for r in records))


def tell(record: Record) -> None:
    """A line for what was not solved."""
    if record["verdict"] != "solved":
        print(
            f"seed {record['seed']} [{record.get('splitting', '-')}] {record['verdict']}: {record['note']}", flush=True
        )


def commit() -> str:
    """The commit that is run, with a + where files differ from it; empty outside a repository."""
    words = ["git", "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
