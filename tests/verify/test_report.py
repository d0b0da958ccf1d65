"""Reports: verdict, text, HTML, JSON."""

import json

import numpy as np
import pytest

from opteq_cvx.verify.report import GradientRow, Report, SampleRow

GOOD = SampleRow(0, "converged", "optimal", 1e-9, 2e-10, 0.0, 1e-8, None, float("nan"), ok=True)
BAD = SampleRow(
    1,
    "converged",
    "not_convex",
    float("nan"),
    float("nan"),
    float("nan"),
    1.0,
    None,
    float("nan"),
    False,
    "W<W>",
)
SLOPE = GradientRow(0, "W", "weight", 1e-7, 1e-9, 3e-2, "differences", True, "the references disagree")
UNJUDGED = GradientRow(0, "x", "input", float("nan"), float("nan"), float("nan"), "", True, "not differentiable")


def _report(*rows: SampleRow, gradients: tuple[GradientRow, ...] = ()) -> Report:
    return Report("the user's problem", 1e-6, 1e-5, rows, gradients, ("the layer ran in float64",))


def test_all_rows_must_pass() -> None:
    assert _report(GOOD).ok
    assert not _report(GOOD, BAD)
    assert _report(GOOD, BAD).failures == (BAD,)


def test_the_largest_errors_are_those_that_were_judged() -> None:
    report = _report(GOOD, BAD, gradients=(SLOPE, UNJUDGED))
    assert report.max_error == 1e-9
    assert report.max_gradient_error == 1e-7
    assert np.isnan(_report(BAD).max_error)
    infinite = SampleRow(0, "converged", "optimal", float("inf"), 0.0, 0.0, 0.0, None, 0.0, ok=False)
    assert _report(GOOD, infinite).max_error == float("inf")


def test_text_is_an_aligned_table() -> None:
    text = str(_report(GOOD, BAD, gradients=(SLOPE, UNJUDGED)))
    assert text.startswith(
        "NOT verified: 1 of 4 rows fail; 2 samples against the user's problem, 1 of 2 gradients judged"
    )
    assert "the layer ran in float64" in text
    assert "bound" not in text, "a column in which no row says anything"
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("sample  status"))
    rows = lines[lines.index(head) + 2 : lines.index(head) + 4]
    for row in rows:
        assert row[head.index("ok") - 2 : head.index("ok")] == "  "
    assert "NO" in rows[1]
    assert "nan" not in text


def test_html_escapes_and_json_is_json() -> None:
    report = _report(GOOD, BAD, gradients=(SLOPE,))
    html = report._repr_html_()
    assert "W&lt;W&gt;" in html
    assert html.count("<table>") == 2
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["ok"] is False
    assert data["samples"][1]["distance"] is None
    assert data["gradients"][0]["parameter"] == "W"


def test_reports_are_frozen() -> None:
    with pytest.raises(AttributeError):
        GOOD.ok = False  # type: ignore[misc]
