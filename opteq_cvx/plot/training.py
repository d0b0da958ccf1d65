"""Training curves from the rows of a metrics file."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opteq_cvx.errors import InputError, message
from opteq_cvx.plot.axes import COLORS, MARKERS, on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPLITS = ("train", "test")


def training_curves(rows: Sequence[Mapping[str, Any]], quantity: str = "loss", axes: "Axes | None" = None) -> "Axes":
    """One quantity of both splits against the epoch, counted from 1; losses on a logarithmic axis.

    Args:
        rows: what `read_metrics` returns.
        quantity: "loss", "accuracy", "solver_steps" or "solver_failed".
        axes: where to draw; by default a new figure.

    Raises:
        InputError: no rows, or rows without the quantity.
    """
    drawn = {split: f"{split}_{quantity}" for split in SPLITS}
    if not rows or not all(name in rows[0] for name in drawn.values()):
        found = f"rows without {quantity}" if rows else "no rows"
        known = ", ".join(k.removeprefix("train_") for k in (rows[0] if rows else ()) if k.startswith("train_"))
        raise InputError(message(found, known or "rows of a metrics file", "draw one of those"))
    axes = on(axes, x="epoch", y=quantity.replace("_", " "), title=f"Training: {quantity.replace('_', ' ')}")
    epochs = [row["epoch"] + 1 for row in rows]
    for (split, name), color, marker in zip(drawn.items(), COLORS, MARKERS, strict=False):
        values = [row[name] for row in rows]
        axes.plot(epochs, values, color=color, marker=marker, markersize=4, label=split)
    if quantity == "loss":
        axes.set_yscale("log")
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False)
    return axes
