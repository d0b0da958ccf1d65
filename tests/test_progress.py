"""A long solve shows a line on request, and is the same solve."""

import io
from pathlib import Path

import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.problem_file import read_problem

PROBLEMS = Path(__file__).resolve().parents[1] / "problems"


@pytest.mark.parametrize(
    ("name", "sizes"), [("opteq_unit", {"inputs": 3, "hidden": 5}), ("portfolio", {"assets": 6, "factors": 2})]
)
def test_the_line_is_shown_wiped_and_changes_nothing(name: str, sizes: dict[str, int]) -> None:
    file = read_problem(PROBLEMS / f"{name}.py")
    layer = oc.compile(*file.declare(**sizes)).double()
    inputs = file.sample(7, torch.Generator().manual_seed(0), **sizes)
    alone = layer.solve(*inputs)
    stream = io.StringIO()
    with oc.progress(delay=0.0, file=stream):
        watched = layer.solve(*inputs)
    shown = stream.getvalue()
    assert "step 1: " in shown
    assert "of 7 samples done, residual at most" in shown
    assert shown.rsplit("\r", 2)[1].strip() == ""  # the last thing written is an empty line
    assert torch.equal(alone.values[0], watched.values[0])
    assert torch.equal(alone.stats.steps, watched.stats.steps)


def test_nothing_is_shown_before_its_time_or_without_asking(capsys: pytest.CaptureFixture[str]) -> None:
    file = read_problem(PROBLEMS / "opteq_unit.py")
    layer = oc.compile(*file.declare(inputs=3, hidden=5)).double()
    x = torch.ones(2, 3, dtype=torch.float64)
    layer.solve(x)
    with oc.progress(delay=60.0):
        layer.solve(x)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
