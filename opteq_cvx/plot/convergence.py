"""All residuals of an iteration, with the spread over the samples."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opteq_cvx.errors import InputError, message
from opteq_cvx.plot.axes import on, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLOOR = 1e-17
"""What is smaller counts as zero, which a logarithmic axis cannot show."""


def convergence(
    residuals: Mapping[str, npt.ArrayLike], *, tolerance: float | None = None, axes: "Axes | None" = None
) -> "Axes":
    """Each residual against the step, from 0: the median sample as a line, all samples as a band behind it.

    A residual that is zero at every step is named in the legend and not drawn.

    Args:
        residuals: by name (steps,) or (steps, samples), for instance those of a `trajectory`.
        tolerance: drawn as a line when given.
        axes: where to draw; by default a new figure.

    Raises:
        InputError: nothing to draw, or an array of another number of axes.
    """
    if not residuals:
        raise InputError(message("no residuals", "at least one", "pass those of a trajectory"))
    axes = on(axes, x="step", y="residual", title="Convergence: median and range of the samples")
    for (name, values), style in zip(residuals.items(), styles(len(residuals)), strict=True):
        array = np.asarray(values, dtype=np.float64)
        if array.ndim not in (1, 2) or array.size == 0:
            found = f"the residual '{name}' has shape {array.shape}"
            raise InputError(message(found, "(steps,) or (steps, samples), not empty", "pass it as it was recorded"))
        _band(axes, np.abs(array.reshape(len(array), -1)), name, style)
    if tolerance is not None:
        axes.axhline(tolerance, color="#707070", linewidth=0.8, linestyle=":", label="tolerance")
    axes.set_yscale("log")
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False)
    return axes


def _band(axes: Any, table: npt.NDArray[np.float64], name: str, style: Any) -> None:
    """Median line and range over the samples (steps, samples), zeros at the floor."""
    middle = np.nanmedian(np.maximum(table, FLOOR), axis=1)
    seen = table > FLOOR
    if not seen.any():
        axes.plot([], [], label=f"{name}: zero", **style)
        return
    steps = np.arange(len(table))
    axes.plot(steps, np.where(middle > FLOOR, middle, np.nan), label=name, **style)
    if table.shape[1] > 1:
        low, high = np.maximum(table.min(axis=1), FLOOR), table.max(axis=1)
        axes.fill_between(steps, low, high, where=seen.any(axis=1), color=style["color"], alpha=0.15, linewidth=0)
