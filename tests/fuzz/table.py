"""Table: how many programs ended how, by splitting and by atom, and why those did not converge that did not."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tests.fuzz.records import CLASSES, Record, latest

HEADS = {"slow": "slower than 10 s"}
GROUPS = ("splitting", "kind", "atom", "gradient", "batch")


def table(records: Sequence[Record], *, markdown: bool = False) -> str:
    """Counts of verdicts by splitting, kind, atom and gradient; then reasons, then what it was made from."""
    last = latest(records)
    rows = counts(last)
    heads = [HEADS.get(c, c) for c in CLASSES]
    parts = [grid(["", "programs", *heads], rows, markdown=markdown)]
    why = reasons(last)
    if why:
        parts.append(grid(["not solved, because", "programs"], why, markdown=markdown))
    return "\n\n".join([*parts, summary(records)])


def counts(last: Iterable[Record]) -> list[list[str]]:
    """One row for all programs, then one for each value of each group: total and the number of each class."""
    tally: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    for r in last:
        tally[-1, "all"][r["verdict"]] += 1
        for place, group in enumerate(GROUPS):
            for value in values(r, group):
                tally[place, f"{group}: {value}"][r["verdict"]] += 1
    return [
        [name, str(sum(row.values())), *(str(row[c]) if row[c] else "" for c in CLASSES)]
        for (_, name), row in sorted(tally.items())
    ]


def values(record: Record, group: str) -> list[str]:
    """What a record counts for in a group."""
    if group == "atom":
        return list(record.get("atoms", ()))
    if group == "gradient":
        return [record["gradient"].split(":")[0]] if record.get("gradient") else []
    found = record.get(group)
    return [str(found)] if found and found != "-" else []


def reasons(last: Iterable[Record]) -> list[list[str]]:
    """How often each reason occurs, numbers left out; the most frequent first."""
    tally = Counter(f"{r['verdict']}: {reason(r['note'])}" for r in last if r["verdict"] != "solved")
    return [[name, str(n)] for name, n in sorted(tally.items(), key=lambda pair: (-pair[1], pair[0]))]


def reason(note: str) -> str:
    """The first part of a note without its samples and numbers."""
    first = re.sub(r"^(not converged|wrong|skipped): ", "", note.split(";")[0])
    first = re.sub(r"[-+]?\d[\d_.,]*(e[-+]?\d+)?", "#", first)
    return re.sub(r"sample # (is )?", "", first).strip()[:120]


def summary(records: Sequence[Record]) -> str:
    """One line: programs, reruns, processor time, commits."""
    last = latest(records)
    again = len(records) - len(last)
    commits = Counter(r.get("commit", "") for r in last)
    told = ", ".join(f"{n} at {c}" for c, n in commits.most_common() if c)
    spent = sum(r.get("spent", 0.0) for r in records)
    return f"{len(last)} programs, {again} run again, {spent:.0f} s of processor time" + (f"; {told}" if told else "")


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> str:
    """Columns that line up, or a table in Markdown."""
    lines = [list(heads), *map(list, rows)]
    if markdown:
        ruled = [lines[0], ["---", *("---:" for _ in heads[1:])], *lines[1:]]
        return "\n".join("| " + " | ".join(line) + " |" for line in ruled)
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join(
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )
