"""Errors against an exact solver, sample by sample."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opteq_cvx.errors import InputError, message
from opteq_cvx.plot.axes import COLORS, MARKERS, on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from opteq_cvx.verify.report import GradientRow, Report

FLOOR = 1e-17
"""Where exact agreement is drawn if nothing else is: a logarithmic axis has no place for zero."""
BELOW = 10.0
"""Exact agreement stands this factor below the smallest other error, so that it does not stretch the axis."""


def verified_errors(
    errors: Mapping[str, npt.ArrayLike], *, tolerance: float | None = None, axes: "Axes | None" = None
) -> "Axes":
    """Relative errors per sample, one marker and color per quantity, with the tolerance as a line.

    Errors below rounding, exact agreement among them, stand a decade below the smallest of the others.

    Args:
        errors: for each name ("values", "gradients") an array (samples,) of errors ≥ 0; NaN is not drawn.
        tolerance: the bound that they are held to.
        axes: where to draw; by default a new figure.

    Raises:
        InputError: an array that is not one-dimensional.
    """
    axes = on(axes, x="sample", y="relative error", title="Checked against the exact solver")
    known = np.concatenate([np.zeros(0), *(np.ravel(np.asarray(v, dtype=np.float64)) for v in errors.values())])
    known = known[np.isfinite(known) & (known > np.finfo(np.float64).eps)]
    floor = float(known.min()) / BELOW if known.size else FLOOR
    for (name, values), color, marker in zip(errors.items(), COLORS, MARKERS, strict=False):
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 1:
            found = f"the errors '{name}' have shape {array.shape}"
            raise InputError(message(found, "(samples,)", "reduce them to one number a sample"))
        shown = np.maximum(array, floor)
        axes.plot(np.arange(len(array)), shown, linestyle="none", marker=marker, color=color, label=name)
    if tolerance is not None:
        axes.axhline(tolerance, color="#707070", linewidth=0.8, linestyle=":", label="tolerance")
    axes.set_yscale("log")
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False)
    return axes


def verified_report(report: "Report", axes: "Axes | None" = None) -> "Axes":
    """A report of `oc.verify`: each sample's distance, and its worst gradient by each of the two references.

    Lines are the tolerances that the report holds them to.
    """
    samples = [row.sample for row in report.samples]
    errors = {"values": [row.distance for row in report.samples]}
    kinds = {"gradients, by differences": "differences", "gradients, by cvxpylayers": "cvxpylayers"}
    for label, kind in kinds.items():
        worst = [_worst(report.gradients, sample, kind) for sample in samples]
        if not np.isnan(worst).all():
            errors[label] = worst
    axes = verified_errors(errors, tolerance=report.tolerance, axes=axes)
    if len(errors) > 1 and report.gradient_tolerance != report.tolerance:
        look: dict[str, Any] = {"color": "#707070", "linewidth": 0.8, "linestyle": "-."}
        axes.axhline(report.gradient_tolerance, label="tolerance of gradients", **look)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axes


def _worst(rows: "Sequence[GradientRow]", sample: int, kind: str) -> float:
    """The largest error of one sample's gradients by one reference; NaN where it said nothing."""
    found = [getattr(row, kind) for row in rows if row.sample == sample]
    known = [e for e in found if not np.isnan(e)]
    return max(known) if known else float("nan")
