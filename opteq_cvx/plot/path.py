"""The way of an iteration in the plane, over the level sets of what it minimizes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from opteq_cvx.errors import InputError, message
from opteq_cvx.plot.axes import DASHES, MARKERS, PATHS, on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = 161
"""Points along each side on which the energy is evaluated."""
LEVELS = 14


def path(
    points: npt.ArrayLike,
    energy: Callable[[Tensor], Tensor] | None = None,
    *,
    names: tuple[str, str] = ("u[0]", "u[1]"),
    axes: "Axes | None" = None,
) -> "Axes":
    """The iterates in the plane, start to end, on level sets of an energy; where that is +∞ the plane is gray.

    Levels are quadratically spaced, so that they are dense around the lowest value.

    Args:
        points: (steps, 2), or (steps, samples, 2) for several paths over one energy.
        energy: (m, 2) → (m,), float64; for instance `Trajectory.energy()`. Without it, the paths alone.
        names: of the two coordinates.
        axes: where to draw; by default a new figure.

    Raises:
        InputError: points of another shape.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.ndim not in (2, 3) or array.shape[-1] != 2 or array.size == 0:
        found = f"points of shape {array.shape}"
        raise InputError(message(found, "(steps, 2) or (steps, samples, 2)", "choose two entries"))
    ways = array.reshape(len(array), -1, 2)
    axes = on(axes, x=names[0], y=names[1], title="Path to the equilibrium")
    axes.grid(visible=False)
    low, high = _window(ways)
    if energy is not None:
        _levels(axes, energy, low, high)
    for k in range(ways.shape[1]):
        style: dict[str, Any] = {"color": PATHS[k % len(PATHS)], "linestyle": DASHES[k % len(DASHES)]}
        label = "iterates" if ways.shape[1] == 1 else f"iterates, sample {k}"
        marker = MARKERS[k % len(MARKERS)]
        axes.plot(*ways[:, k].T, marker=marker, markersize=3.5, linewidth=1.2, label=label, **style)
    axes.plot(*ways[0].T, "o", color="black", markerfacecolor="white", markersize=7, label="start", zorder=3)
    axes.plot(*ways[-1].T, "*", color="black", markersize=12, label="end", zorder=3)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.set_aspect("equal", adjustable="box")
    axes.legend(frameon=True, framealpha=0.85, edgecolor="none")
    return axes


def _window(ways: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A square around all points, a quarter wider than they reach."""
    low, high = np.nanmin(ways, axis=(0, 1)), np.nanmax(ways, axis=(0, 1))
    half = 0.625 * max(float((high - low).max()), 1e-9)
    middle = 0.5 * (low + high)
    return middle - half, middle + half


def _levels(axes: Any, energy: Callable[[Tensor], Tensor], low: Any, high: Any) -> None:
    """Lines of equal energy on a grid, and a gray ground where it is +∞."""
    x, y = (np.linspace(low[k], high[k], GRID) for k in range(2))
    nodes = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    values = energy(torch.from_numpy(nodes)).detach().cpu().to(torch.float64).numpy().reshape(GRID, GRID)
    finite = np.isfinite(values)
    if not finite.all():
        axes.contourf(x, y, np.where(finite, 0.0, 1.0), levels=[0.5, 1.5], colors=["#E6E6E6"], zorder=0)
    if not finite.any():
        return
    bottom, top = float(values[finite].min()), float(values[finite].max())
    if top > bottom:
        heights = bottom + (top - bottom) * np.linspace(0.0, 1.0, LEVELS + 1)[1:] ** 2
        shown = np.ma.masked_invalid(values)
        axes.contour(x, y, shown, levels=heights, cmap="cividis_r", linewidths=0.8, zorder=1)
