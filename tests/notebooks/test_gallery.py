"""The gallery: a picture and a paragraph for each problem file, in step with the files."""

from collections.abc import Iterator

import matplotlib as mpl
import pytest

from notebooks import gallery
from opteq_cvx.problem_file import ProblemFile

mpl.use("agg")
LARGEST = 2_000_000
"""Bytes of all pictures together."""
FILES = {file.name: file for file in gallery.problems()}
QUICK = ("graph_smoothing", "group_lasso", "nash_game", "opteq_unit")


@pytest.fixture(params=[pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in FILES])
def file(request: pytest.FixtureRequest) -> ProblemFile:
    """One problem; all of them in the slow run."""
    return FILES[str(request.param)]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Figures are closed afterwards."""
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def test_every_problem_has_a_drawing_and_a_picture_and_nothing_else_has() -> None:
    assert sorted(gallery.DRAWINGS) == sorted(FILES)
    assert sorted(path.stem for path in gallery.FIGURES.glob("*.png")) == sorted(FILES)


def test_the_pictures_are_small() -> None:
    assert sum(path.stat().st_size for path in gallery.FIGURES.glob("*.png")) < LARGEST


def test_the_page_is_in_step_with_the_files() -> None:
    assert gallery.PAGE.read_text(encoding="utf-8") == gallery.page(), "run `python notebooks/render.py --gallery`"


def test_a_drawing_has_a_title_and_labels(file: ProblemFile) -> None:
    figure = gallery.make(file)
    drawn = [axes for axes in figure.axes for axes in (axes, *axes.child_axes) if axes.axison]
    assert any(axes.get_title() for axes in drawn)
    named = [axes for axes in drawn if axes.get_label() != "<colorbar>"]
    assert all(axes.get_xlabel() for axes in named)
    assert any(axes.get_ylabel() for axes in named)
