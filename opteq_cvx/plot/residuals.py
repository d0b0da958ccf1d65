"""Residual histories of fixed-point iterations."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opteq_cvx.errors import InputError, message
from opteq_cvx.plot.axes import on, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLOOR = 1e-17
"""Zeros are drawn here: a logarithmic axis has no place for them."""


def residual_history(
    histories: Mapping[str, npt.ArrayLike],
    *,
    every: int = 1,
    tolerance: float | None = None,
    axes: "Axes | None" = None,
) -> "Axes":
    """The relative residual against the iteration: per method the median sample, and a band over all.

    Args:
        histories: for each name residuals (checks,) or (checks, batch); NaN where a sample had ended.
        every: iterations between two checks, the first of which comes after one.
        tolerance: drawn as a line when given.
        axes: where to draw; by default a new figure.

    Raises:
        InputError: an array of another number of axes, or an empty one.
    """
    axes = on(axes, x="iteration", y="relative residual", title="Convergence")
    for (name, values), style in zip(histories.items(), styles(len(histories)), strict=True):
        array = np.asarray(values, dtype=np.float64)
        if array.ndim not in (1, 2) or array.size == 0:
            found, fix = (
                f"the history '{name}' has shape {array.shape}",
                "record residuals and pass them as they are",
            )
            raise InputError(message(found, "(checks,) or (checks, batch), not empty", fix))
        table = np.maximum(array.reshape(len(array), -1), FLOOR)
        table = table[~np.isnan(table).all(axis=1)]
        steps = 1 + every * np.arange(len(table))
        _band(axes, steps, table, name, style)
    if tolerance is not None:
        axes.axhline(tolerance, color="#707070", linewidth=0.8, linestyle=":", label="tolerance")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    return axes


def _band(axes: Any, steps: npt.NDArray[np.int64], table: npt.NDArray[np.float64], name: str, style: Any) -> None:
    """Median line, and the range over the batch behind it."""
    axes.plot(steps, np.nanmedian(table, axis=1), label=name, **style)
    if table.shape[1] > 1:
        low, high = np.nanmin(table, axis=1), np.nanmax(table, axis=1)
        axes.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)
