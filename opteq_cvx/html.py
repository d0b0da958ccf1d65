"""HTML for notebooks: tables and formulas, everything of the user escaped. Jupyter typesets the LaTeX in it."""

from collections.abc import Iterable, Sequence
from html import escape

LEFT = " style='text-align:left'"


def formula(latex: str) -> str:
    """A displayed formula; what HTML would read as markup is escaped, and reaches the typesetter as it was."""
    return f"<div>$${escape(latex, quote=False)}$$</div>"


def table(rows: Iterable[Sequence[str]], heads: Sequence[str] = (), caption: str = "") -> str:
    """Rows of texts; without `heads` the first cell of each row is its heading."""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    top = "<tr>" + "".join(f"<th{LEFT}>{escape(h)}</th>" for h in heads) + "</tr>" if heads else ""
    return f"<table>{title}{top}{''.join(_row(row, headed=not heads) for row in rows)}</table>"


def details(summary: str, inside: str) -> str:
    """What is folded away until it is asked for; `inside` is HTML."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def _row(cells: Sequence[str], *, headed: bool) -> str:
    tags = ["th" if headed and i == 0 else "td" for i in range(len(cells))]
    return "<tr>" + "".join(f"<{t}{LEFT}>{escape(c)}</{t}>" for t, c in zip(tags, cells, strict=True)) + "</tr>"
