"""Folding: no word is lost, lines fit, and what continues hangs under its column."""

import pytest

from opteq_cvx.folding import fold

PLAN = """plan: forward–backward
  quadratic  ½uᵀPu, P dense, from objective[0] "0.5 * sum_squares(L + S - X)"; objective[3] "0.05 * sum_squares(L)"
  M          once"""


def test_short_lines_stay() -> None:
    assert fold("a\n\n  b  c\n", 20) == "a\n\n  b  c\n"


def test_continuations_hang_under_the_text() -> None:
    lines = fold(PLAN, 60).split("\n")
    assert max(map(len, lines)) <= 60
    assert lines[1].startswith("  quadratic  ½uᵀPu")
    assert all(line.startswith(" " * 13) and line[13] != " " for line in lines[2:-1])
    assert lines[-1] == "  M          once"


def test_a_comment_that_does_not_fit_gets_its_own_line() -> None:
    line = "  t0  square  D @ x - y  w=0.5  # objective[0]: 0.5 * sum_squares(D @ x - y)"
    assert fold(line, 48).split("\n") == [
        "  t0  square  D @ x - y  w=0.5",
        "      # objective[0]: 0.5 * sum_squares(D @ x -",
        "        y)",
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_word_is_lost(width: int) -> None:
    assert fold(PLAN, width).split() == PLAN.split()
