"""Figures: the data that is drawn, on the axes that were given, with nothing shown."""

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from opteq_cvx.atoms.contract import Atom
from opteq_cvx.errors import InputError
from opteq_cvx.plot import prox, residual_history, training_curves, verified_errors
from opteq_cvx.plot.axes import COLORS

mpl.use("agg")

ROWS = [
    {
        "epoch": k,
        "train_loss": 1 / (k + 1),
        "test_loss": 2 / (k + 1),
        "train_accuracy": 0.5,
        "test_accuracy": 0.4,
    }
    for k in range(4)
]


@pytest.fixture
def axes() -> Axes:
    """Axes outside pyplot's books."""
    return Figure().subplots()


@pytest.fixture(autouse=True)
def _never_shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A figure that shows itself fails; figures are closed afterwards."""
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: pytest.fail("a plot function called show"))
    yield
    plt.close("all")


def lines(axes: Axes) -> dict[str, np.ndarray]:
    """The y data of the lines with a label."""
    return {str(line.get_label()): np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()}


def test_training_curves_draw_both_splits(axes: Axes) -> None:
    assert training_curves(ROWS, axes=axes) is axes
    np.testing.assert_allclose(lines(axes)["train"], [1, 1 / 2, 1 / 3, 1 / 4])
    np.testing.assert_allclose(lines(axes)["test"], [2, 1, 2 / 3, 1 / 2])
    assert axes.get_lines()[0].get_xdata()[0] == 1
    assert axes.get_yscale() == "log"
    assert training_curves(ROWS, "accuracy", Figure().subplots()).get_yscale() == "linear"


def test_training_curves_say_what_there_is(axes: Axes) -> None:
    with pytest.raises(InputError, match="loss, accuracy"):
        training_curves(ROWS, "perplexity", axes)
    with pytest.raises(InputError, match="no rows"):
        training_curves([], axes=axes)


def test_residuals_draw_the_median_and_the_band(axes: Axes) -> None:
    batch = np.array([[1.0, 2.0, 4.0], [0.1, 0.0, 0.4], [np.nan, np.nan, 0.1], [np.nan] * 3])
    residual_history({"plain": batch, "anderson": [1.0, 0.01]}, every=5, tolerance=1e-3, axes=axes)
    np.testing.assert_allclose(lines(axes)["plain"], [2.0, 0.1, 0.1])
    assert axes.get_lines()[0].get_xdata().tolist() == [1, 6, 11]
    np.testing.assert_allclose(lines(axes)["anderson"], [1.0, 0.01])
    assert "tolerance" in lines(axes)
    assert len(axes.collections) == 1  # a band for the batch, none for the single sample


def test_a_history_of_another_shape_is_refused(axes: Axes) -> None:
    with pytest.raises(InputError, match=r"'plain' has shape \(1, 1, 2\)"):
        residual_history({"plain": np.ones((1, 1, 2))}, axes=axes)


def test_verified_errors_draw_every_sample(axes: Axes) -> None:
    verified_errors({"values": [1e-9, 0.0], "gradients": [1e-7, np.nan]}, tolerance=1e-6, axes=axes)
    np.testing.assert_allclose(lines(axes)["values"], [1e-9, 1e-10])
    assert np.isnan(lines(axes)["gradients"][1])
    with pytest.raises(InputError, match="'values'"):
        verified_errors({"values": np.ones((2, 2))}, axes=axes)


def test_exact_agreement_does_not_stretch_the_axis(axes: Axes) -> None:
    verified_errors({"values": [1e-9, 0.0, 1e-17], "gradients": [1e-7, 1e-8, np.nan]}, axes=axes)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1e-9, 1e-10, 1e-10])
    verified_errors({"values": [0.0]}, axes=axes)
    np.testing.assert_allclose(axes.lines[-1].get_ydata(), [1e-17])


def test_prox_draws_soft_thresholding(axes: Axes) -> None:
    from opteq_cvx.atoms.abs import Abs

    prox(Abs(), step=0.5, axes=axes)
    x = np.linspace(-3, 3, 801)
    np.testing.assert_allclose(lines(axes)["f(x)"], np.abs(x), atol=1e-12)
    expected = np.sign(x) * np.maximum(np.abs(x) - 0.5, 0)
    np.testing.assert_allclose(lines(axes)["prox, step 0.5"], expected, atol=1e-12)


def test_prox_leaves_out_what_is_infinite(axes: Axes) -> None:
    from opteq_cvx.atoms.nonneg import Nonneg

    atom: Atom = Nonneg()
    prox(atom, low=-1.0, high=1.0, axes=axes)
    drawn = lines(axes)["f(x)"]
    assert np.isnan(drawn[:400]).all()
    assert (drawn[400:] == 0).all()
    assert (lines(axes)["prox, step 1"] >= 0).all()


def test_without_axes_a_new_figure_is_made() -> None:
    first, second = training_curves(ROWS), training_curves(ROWS)
    assert first.figure is not second.figure


def luminance(color: str) -> float:
    """Relative luminance of an sRGB color (WCAG 2)."""
    channels = torch.tensor([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = torch.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ torch.tensor([0.2126, 0.7152, 0.0722]))


def test_the_first_two_colors_differ_in_gray_too() -> None:
    assert abs(luminance(COLORS[0]) - luminance(COLORS[1])) > 0.2
    assert len(set(COLORS)) == len(COLORS)
