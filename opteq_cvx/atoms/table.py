"""The table of atoms, for README and `opteq atoms`: regenerated, never edited."""

from dataclasses import dataclass

from opteq_cvx.atoms import Spelling, registry


@dataclass(frozen=True, slots=True)
class Row:
    """One atom as text."""

    name: str
    formula: str
    spellings: tuple[str, ...]
    cost: str
    source: str


def rows() -> tuple[Row, ...]:
    """One row for each registered atom, sorted by name."""
    atoms = sorted(registry(), key=lambda cls: cls.name)
    return tuple(Row(c.name, c.formula, _texts(c.spellings), c.cost, c.source) for c in atoms)


def _texts(spellings: tuple[Spelling, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(s.text or _attributes(s) for s in spellings))


def _attributes(spelling: Spelling) -> str:
    given = ", ".join(f"{k}={v}" for a in spelling.attributes.values() for k, v in a.items())
    return f"Variable({given})"


def markdown() -> str:
    """The table as Markdown, for README."""
    lines = ["| atom | f(x) | CVXPY spellings | cost of a prox | source |", "|---|---|---|---|---|"]
    for row in rows():
        texts = ", ".join(f"`{text}`" for text in row.spellings)
        cells = (f"`{row.name}`", row.formula, texts, row.cost, row.source)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
