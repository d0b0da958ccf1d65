"""What all figures share: colors that color-blind readers tell apart, and where a figure is drawn."""

from itertools import cycle, islice
from typing import TYPE_CHECKING

from opteq_cvx.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
"""Okabe and Ito's palette (*Color Universal Design*, 2008) without yellow, which is too light for lines."""
PATHS = ("#D55E00", "#0072B2", "#CC79A7", "#009E73")
"""Of those, the ones that stand out from level sets in blue and yellow."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")


def on(axes: "Axes | None", *, x: str, y: str, title: str) -> "Axes":
    """`axes`, or those of a new figure, with labels, a title and a light grid behind the data."""
    if axes is None:
        axes = require("matplotlib.pyplot", extra="plot").subplots(figsize=(5.0, 3.4), layout="constrained")[1]
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.grid(visible=True, color="#D0D0D0", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


def styles(count: int) -> list[dict[str, str]]:
    """Line styles that differ in color and, in gray print, in their dashes."""
    pairs = zip(cycle(COLORS), cycle(DASHES), strict=False)
    return [{"color": color, "linestyle": dash} for color, dash in islice(pairs, count)]
