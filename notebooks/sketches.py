"""What the pictures of several problems share: compiled layers, and a few kinds of small diagrams."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.plot.axes import COLORS, DASHES, MARKERS, on
from opteq_cvx.problem_file import ProblemFile


def build(file: ProblemFile, weights: Mapping[str, Any] | None = None, **sizes: int) -> Any:
    """The compiled layer in float64, some weights set."""
    layer = oc.compile(*file.declare(**sizes)).double()
    for name, value in (weights or {}).items():
        layer.weights.set(name, value)
    return layer


def outputs(layer: Any, *inputs: Any) -> list[np.ndarray]:
    """The layer's outputs as arrays."""
    with torch.no_grad():
        return [y.numpy() for y in layer(*(torch.as_tensor(x, dtype=torch.float64) for x in inputs))]


def ray(inputs: int, low: float, high: float, seed: int = 0) -> tuple[np.ndarray, Tensor]:
    """Positions t and the inputs t·d along a random direction d of length √inputs."""
    t = np.linspace(low, high, 121)
    d = torch.randn(inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return t, torch.from_numpy(t)[:, None] * d


def lines(axes: Any, t: np.ndarray, values: np.ndarray, label: str, **kinds: str) -> None:
    """Entries of a solution against the position of the input."""
    on(axes, **kinds)
    for k, line in enumerate(values.T):
        style = {"color": COLORS[k % len(COLORS)], "linestyle": DASHES[k % len(DASHES)]}
        axes.plot(t, line, label=label.format(k), **style)
    axes.legend(frameon=False, fontsize="x-small")


def tables(axes: Any, shown: Mapping[str, np.ndarray], *, rows: str, columns: str, signed: bool = True) -> None:
    """Matrices side by side in one color scale; NaN is left white."""
    top = max(float(np.nanmax(np.abs(m))) for m in shown.values())
    look = {"cmap": "PuOr" if signed else "cividis", "vmin": -top if signed else 0.0, "vmax": top}
    axes.axis("off")
    for k, (title, matrix) in enumerate(shown.items()):
        width = 1.0 / len(shown)
        part = axes.inset_axes((k * width + 0.04, 0.0, width - 0.06, 1.0))
        image = part.imshow(matrix, aspect="equal", **look)
        part.set(title=title, xlabel=columns, ylabel=rows if k == 0 else "", xticks=[], yticks=[])
    axes.figure.colorbar(image, ax=axes, fraction=0.04)


def stems(axes: Any, series: Mapping[str, np.ndarray], **kinds: str) -> None:
    """Numbers at places, one marker for each series."""
    on(axes, **kinds)
    for k, (name, values) in enumerate(series.items()):
        color, marker, place = COLORS[k], MARKERS[k], np.arange(len(values)) + 0.12 * k
        axes.vlines(place, 0, values, color=color, linewidth=1.0)
        axes.plot(place, values, marker, color=color, markersize=4, label=name)
    axes.axhline(0, color="#808080", linewidth=0.6)
    axes.legend(frameon=False, fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(series))


def profile(axes: Any, before: np.ndarray, after: np.ndarray, names: tuple[str, str], **kinds: str) -> None:
    """A sequence of numbers, and the layer's answer to it."""
    on(axes, **kinds)
    axes.plot(before, "o", color="#808080", markersize=3, label=names[0])
    axes.plot(after, color=COLORS[0], label=names[1])
    axes.legend(frameon=False, fontsize="x-small")
