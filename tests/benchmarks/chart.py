"""Benchmark rows as a picture: lines where a number varies, bars where contenders are compared once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tests.benchmarks.harness import Row

WIDTH, HEIGHT, ACROSS = 4.6, 3.2, 3


@dataclass(frozen=True, slots=True)
class Panel:
    """Times (median, low, high) in milliseconds by contender and place; `places` are numbers, or one for bars."""

    title: str
    label: str
    series: Mapping[str, Mapping[float, tuple[float, float, float]]]


def by_batch(rows: Sequence["Row"]) -> list[Panel]:
    """A panel for each workload, size and dtype; contenders against the batch."""
    panels = []
    for key in dict.fromkeys((r.workload, r.size, r.dtype) for r in rows):
        of = [r for r in rows if (r.workload, r.size, r.dtype) == key]
        series = {
            who: {float(r.batch): (r.median_ms, r.low_ms, r.high_ms) for r in of if r.who == who}
            for who in dict.fromkeys(r.who for r in of)
        }
        panels.append(Panel(", ".join(key), "batch", series))
    return panels


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Write a PNG; nothing where matplotlib is not installed, or no time was measured."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture: matplotlib is not installed")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    if not panels:
        return
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure, axes = plt.subplots(down, across, figsize=(WIDTH * across, HEIGHT * down), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        lines(axis, panel) if any(len(s) > 1 for s in panel.series.values()) else bars(axis, panel)
        axis.set_title(panel.title, fontsize=9)
        axis.grid(visible=True, which="major", alpha=0.3)
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def lines(axis: "Axes", panel: Panel) -> None:
    """Time against a number, both logarithmic, with the spread; the slope between the ends in the legend."""
    for who, points in panel.series.items():
        x = np.array(sorted(points))
        middle, low, high = (np.array([points[k][i] for k in x]) for i in range(3))
        slope = f", ~{np.log(middle[-1] / middle[0]) / np.log(x[-1] / x[0]):.2f}" if len(x) > 1 else ""
        spread = np.maximum(np.stack([middle - low, high - middle]), 0.0)
        axis.errorbar(x, middle, spread, marker="o", markersize=3, linewidth=1, label=f"{who}{slope}")
    axis.set(xscale="log", yscale="log")
    axis.set_xlabel(panel.label, fontsize=8)
    axis.set_ylabel("ms", fontsize=8)
    axis.legend(fontsize=6)


def bars(axis: "Axes", panel: Panel) -> None:
    """Contenders one below the other, the fastest on top."""
    found = sorted(((who, *points.values()) for who, points in panel.series.items()), key=lambda f: -f[1][0])
    names, times = [f[0] for f in found], np.array([f[1] for f in found])
    spread = np.maximum(np.stack([times[:, 0] - times[:, 1], times[:, 2] - times[:, 0]]), 0.0)
    axis.barh(names, times[:, 0], xerr=spread, height=0.6, error_kw={"linewidth": 1})
    for at, time in enumerate(times[:, 0]):
        axis.text(time, at, f" {time:.3g}", va="center", fontsize=7)
    axis.set_xscale("log")
    axis.set_xlim(times[:, 0].min() / 2, times[:, 0].max() * 4)
    axis.set_xlabel("ms", fontsize=8)
