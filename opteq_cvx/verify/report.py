"""Report: what `verify` found, sample by sample, as frozen rows with a readable table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from typing import Any

import numpy as np
from typing_extensions import override

from opteq_cvx.html import formula

MEANING = (
    r"\text{distance} = \frac{\lVert y - y^\star \rVert}{1 + \lVert y^\star \rVert}, \qquad "
    r"\text{objective gap} = \frac{\lvert F(u) - p^\star \rvert}{1 + \lvert p^\star \rvert}"
)
"""What the columns of a report are, in notebooks."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One sample against the exact solver; all errors relative.

    Attributes:
        sample: Flat index in the batch.
        status: The layer's status.
        exact: The exact solver's status.
        distance: ‖y − y*‖ / (1 + ‖y*‖) over all outputs, y* the exact solution nearest to y.
        objective_gap: |F(u) − p*| / (1 + |p*|).
        violation: The largest relative violation of a constraint or a variable's attribute.
        residual: The layer's own relative fixed-point residual.
        unique: Whether the exact outputs are unique; None where the question did not arise (y is the exact
            solution).
        bound: The layer's certified bound on the distance, NaN where it has none.
        ok: Whether the sample passes.
        note: Why it does not, or what to know.
    """

    sample: int
    status: str
    exact: str
    distance: float
    objective_gap: float
    violation: float
    residual: float
    unique: bool | None
    bound: float
    ok: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class GradientRow:
    """The gradient in one parameter at one sample, relative errors; NaN where a reference had nothing to say.

    Attributes:
        sample: Flat index in the batch.
        parameter: The input's or weight's name; weights are compared in effective values.
        kind: "input" or "weight".
        differences: Directional derivative against central differences of the exact solver.
        uncertainty: The estimated relative error of those differences.
        cvxpylayers: Full gradient against cvxpylayers.
        judged: Which reference decided: "differences", "cvxpylayers" or "" (none could).
        ok: Whether the row passes; a row that no reference could judge passes, and `note` says why.
        note: Why it does not, or what to know.
    """

    sample: int
    parameter: str
    kind: str
    differences: float
    uncertainty: float
    cvxpylayers: float
    judged: str
    ok: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared, with what, and how it came out. `bool(report)` and `report.ok` say whether all rows
    pass."""

    source: str
    tolerance: float
    gradient_tolerance: float
    samples: tuple[SampleRow, ...]
    gradients: tuple[GradientRow, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every row passes."""
        return not self.failures

    def __bool__(self) -> bool:
        return self.ok

    @property
    def max_error(self) -> float:
        """The largest relative distance of an output from the exact solution set (NaN without a solved
        sample)."""
        return _largest([row.distance for row in self.samples])

    @property
    def max_gradient_error(self) -> float:
        """The largest relative error of a gradient against the reference that decided (NaN without any)."""
        judged = [row for row in self.gradients if row.judged]
        return _largest([r.differences if r.judged == "differences" else r.cvxpylayers for r in judged])

    @property
    def failures(self) -> tuple[SampleRow | GradientRow, ...]:
        """The rows that do not pass."""
        rows: tuple[SampleRow | GradientRow, ...] = (*self.samples, *self.gradients)
        return tuple(row for row in rows if not row.ok)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values; NaN and infinity become None."""
        plain = _plain(asdict(self))
        return {
            "ok": self.ok,
            "max_error": _plain(self.max_error),
            "max_gradient_error": _plain(self.max_gradient_error),
            **plain,
        }

    @override
    def __str__(self) -> str:
        parts = [self._headline(), *(f"  {note}" for note in self.notes)]
        for title, rows in (("values", self.samples), ("gradients", self.gradients)):
            if rows:
                parts += ["", f"{title} (relative errors)", _table(*_cells(rows))]
        return "\n".join(parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{escape(self._headline())}</b></p>"]
        parts += [f"<p>{escape(note)}</p>" for note in self.notes]
        parts.append(formula(MEANING))
        for rows in (self.samples, self.gradients):
            if rows:
                heads, cells = _cells(rows)
                body = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in line)}</tr>" for line in cells)
                parts.append(f"<table><tr>{''.join(f'<th>{escape(h)}</th>' for h in heads)}</tr>{body}</table>")
        return "".join(parts)

    def _headline(self) -> str:
        bad = len(self.failures)
        verdict = (
            "verified" if self.ok else f"NOT verified: {bad} of {len(self.samples) + len(self.gradients)} rows fail"
        )
        judged = sum(bool(row.judged) for row in self.gradients)
        checked = f", {judged} of {len(self.gradients)} gradients judged" if self.gradients else ""
        return f"{verdict}; {len(self.samples)} samples against {self.source}{checked}"


def _largest(errors: Sequence[float]) -> float:
    """The largest of the errors that are numbers (infinity included)."""
    known = [e for e in errors if not np.isnan(e)]
    return max(known) if known else float("nan")


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {k: _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case float():
            return value if np.isfinite(value) else None
        case _:
            return value


def _text(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "NO"
        case float():
            return "-" if np.isnan(value) else f"{value:.1e}"
        case None:
            return "-"
        case _:
            return str(value)


def _cells(rows: Sequence[SampleRow | GradientRow]) -> tuple[list[str], list[list[str]]]:
    """Headings and texts; columns in which no row says anything are left out."""
    names = [f.name for f in fields(rows[0])]
    cells = [[_text(getattr(row, name)) for name in names] for row in rows]
    kept = [i for i in range(len(names)) if any(line[i] not in ("-", "") for line in cells)]
    return [names[i].replace("_", " ") for i in kept], [[line[i] for i in kept] for line in cells]


def _table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in (heads, *cells)) for i in range(len(heads))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in (heads, *cells)]
    return "\n".join([lines[0], "-" * min(sum(widths) + 2 * len(widths), 110), *lines[1:]])
