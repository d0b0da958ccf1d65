"""Which units are active, and how that changes over training."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from opteq_cvx.errors import InputError, message
from opteq_cvx.plot.axes import on

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def active_sets(history: npt.ArrayLike, *, axes: "Axes | None" = None) -> "Axes":
    """A map of units against epochs, from 0, shaded by the share of samples in which the unit is active.

    Units are sorted by their share at the end, so that those which serve everywhere are on top and dead ones at the
    bottom.

    Args:
        history: (epochs, units), or (epochs, samples, units), nonzero where active.
        axes: where to draw; by default a new figure.

    Raises:
        InputError: an array of another number of axes, or an empty one.
    """
    array = np.asarray(history)
    if array.ndim not in (2, 3) or array.size == 0:
        found = f"a history of shape {array.shape}"
        raise InputError(message(found, "(epochs, units) or (epochs, samples, units)", "stack one entry an epoch"))
    active = (array != 0).astype(np.float64)
    shares = active if active.ndim == 2 else active.mean(axis=1)
    order = np.argsort(-shares[-1], kind="stable")
    axes = on(axes, x="epoch", y="unit, by activity at the end", title="Active sets over training")
    axes.grid(visible=False)
    image = axes.imshow(shares[:, order].T, aspect="auto", cmap="cividis", vmin=0.0, interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, label="share of samples in which it is active")
    axes.locator_params(axis="both", integer=True)
    return axes
