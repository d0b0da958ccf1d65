"""The eigenvalues of an iteration map's Jacobian."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opteq_cvx.errors import InputError, message
from opteq_cvx.plot.axes import COLORS, MARKERS, on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REAL = 1e-8
"""Imaginary parts below this share of the largest modulus are rounding."""


def spectrum(
    eigenvalues: Mapping[str, npt.ArrayLike], *, bound: float | None = None, axes: "Axes | None" = None
) -> "Axes":
    """Eigenvalues of J = ∂T/∂z, near the fixed point the factors by which errors shrink at each step.

    Where all are real (J = D M, both symmetric: forward–backward) in order of size; otherwise in the complex plane,
    with the unit circle, inside which the iteration converges.

    Args:
        eigenvalues: by name (d,), real or complex; for instance the rows of `Trajectory.spectrum()`.
        bound: a certified contraction factor, drawn as a line or a circle.
        axes: where to draw; by default a new figure.

    Raises:
        InputError: nothing to draw, or an array that is not one-dimensional.
    """
    found = {name: np.asarray(v, dtype=np.complex128) for name, v in eigenvalues.items()}
    for name, values in found.items():
        if values.ndim != 1 or values.size == 0:
            raise InputError(message(f"eigenvalues '{name}' of shape {values.shape}", "(d,)", "pass one sample's"))
    if not found:
        raise InputError(message("no eigenvalues", "at least one set", "pass those of a trajectory"))
    largest = max(float(np.abs(v).max()) for v in found.values())
    real = all(float(np.abs(v.imag).max()) <= REAL * max(largest, 1.0) for v in found.values())
    x, y = ("index", "eigenvalue") if real else ("real part", "imaginary part")
    axes = on(axes, x=x, y=y, title="Spectrum of the iteration map")
    if real:
        _ordered(axes, found, bound)
    else:
        _plane(axes, found, bound)
    axes.legend(frameon=False, loc="best" if real else "center left", bbox_to_anchor=None if real else (1.0, 0.5))
    return axes


def _ordered(axes: Any, found: Mapping[str, npt.NDArray[np.complex128]], bound: float | None) -> None:
    """Real eigenvalues, the largest first."""
    if bound is not None:
        axes.axhline(bound, color="#707070", linewidth=0.8, linestyle=":", label="certified bound")
    for k, (name, values) in enumerate(found.items()):
        marker, color = MARKERS[k % len(MARKERS)], COLORS[k % len(COLORS)]
        places = np.arange(1, len(values) + 1)
        ordered = np.sort(values.real)[::-1]
        axes.plot(places, ordered, color=color, marker=marker, markersize=4, linewidth=0.8, label=name)
    axes.locator_params(axis="x", integer=True)


def _plane(axes: Any, found: Mapping[str, npt.NDArray[np.complex128]], bound: float | None) -> None:
    """The complex plane with the unit circle."""
    angle = np.linspace(0.0, 2.0 * np.pi, 361)
    axes.plot(np.cos(angle), np.sin(angle), color="black", linewidth=0.8, label="unit circle")
    if bound is not None:
        radius = bound * np.exp(1j * angle)
        axes.plot(radius.real, radius.imag, color="#707070", linewidth=0.8, linestyle=":", label="certified bound")
    for k, (name, values) in enumerate(found.items()):
        marker, color = MARKERS[k % len(MARKERS)], COLORS[k % len(COLORS)]
        axes.plot(values.real, values.imag, linestyle="none", marker=marker, markersize=4, color=color, label=name)
    axes.set_aspect("equal", adjustable="box")
