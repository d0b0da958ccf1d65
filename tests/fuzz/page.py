"""The tables of a run in the documentation, between two marks of a page: one command writes them again."""

from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.records import CLASSES, Record, latest
from tests.fuzz.table import HEADS, counts, grid, reasons, summary

BEGIN, END = "<!-- random programs: written by python -m tests.fuzz -->", "<!-- end of random programs -->"


def tables(records: Sequence[Record]) -> str:
    """What became of the programs, how often each atom occurred, and why those were not solved that were not."""
    last = latest(records)
    rows, heads = counts(last), ["programs", *(HEADS.get(c, c) for c in CLASSES)]
    general = [[name, *_zeros(numbers)] for name, *numbers in rows if not name.startswith("atom: ")]
    atoms = [[f"`{name[6:]}`", *_zeros(numbers)] for name, *numbers in rows if name.startswith("atom: ")]
    parts = [
        f"{summary(records)}.",
        grid(["", *heads], general, markdown=True),
        f"{len(atoms)} atoms occurred; a program counts for each of its atoms.",
        grid(["atom", *heads], atoms, markdown=True),
    ]
    why = [[f"`{name}`", number] for name, number in reasons(last)]
    if why:
        parts.append(grid(["not solved, because", "programs"], why, markdown=True))
    return "\n\n".join(parts)


def write(page: Path, records: Sequence[Record]) -> None:
    """Put the tables in the place of those in the page.

    Raises:
        ValueError: the page lacks the marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{begin}\n\n{tables(records)}\n\n{end}{after}", encoding="utf-8")


def _zeros(numbers: Sequence[str]) -> list[str]:
    return [n or "0" for n in numbers]
