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
    names = list(dict.fromkeys(who for panel in panels for who in panel.series))
    colors = {who: f"C{i % 10}" for i, who in enumerate(sorted(names, key=lambda n: "opteq" not in n))}
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    lined = [panel for panel in panels if any(len(s) > 1 for s in panel.series.values())]
    for axis, panel in zip(axes.flat, panels, strict=False):
        (lines if panel in lined else bars)(axis, panel, colors)
        axis.grid(visible=True, which="major", alpha=0.3)
        axis.tick_params(labelsize=8)
        axis.minorticks_off()
    if lined and len(names) > 1:
        handles = [plt.Line2D([], [], color=colors[who], marker="o", markersize=4, label=who) for who in colors]
        figure.legend(handles=handles, loc="lower center", ncols=min(len(names), 4), fontsize=8)
    figure.tight_layout(rect=(0.0, 0.4 * len(lined[:1]) / (HEIGHT * down), 1.0, 1.0))
    figure.savefig(path, dpi=80)
    plt.close(figure)


def lines(axis: "Axes", panel: Panel, colors: Mapping[str, str]) -> None:
    """Time against a number, both logarithmic, with the spread; the title says how ours grows between the ends."""
    growth = ""
    for who, points in panel.series.items():
        x = np.array(sorted(points))
        middle, low, high = (np.array([points[k][i] for k in x]) for i in range(3))
        spread = np.maximum(np.stack([middle - low, high - middle]), 0.0)
        axis.errorbar(x, middle, spread, marker="o", markersize=3, linewidth=1, color=colors[who])
        if who == "opteq_cvx" and len(x) > 1:
            growth = f"\nours as {panel.label}^{np.log(middle[-1] / middle[0]) / np.log(x[-1] / x[0]):.2f}"
    axis.set(xscale="log", yscale="log")
    places = sorted({place for points in panel.series.values() for place in points})
    axis.set_xticks(places, [f"{place:g}" for place in places])
    axis.set_title(f"{panel.title}{growth}", fontsize=8)
    axis.set_xlabel(panel.label, fontsize=8)
    axis.set_ylabel("ms", fontsize=8)


def bars(axis: "Axes", panel: Panel, colors: Mapping[str, str]) -> None:
    """Contenders one below the other, the fastest on top."""
    found = sorted(((who, *points.values()) for who, points in panel.series.items()), key=lambda f: -f[1][0])
    names, times = [f[0] for f in found], np.array([f[1] for f in found])
    spread = np.maximum(np.stack([times[:, 0] - times[:, 1], times[:, 2] - times[:, 0]]), 0.0)
    shades = [colors[who] for who in names]
    axis.barh(names, times[:, 0], xerr=spread, height=0.6, color=shades, error_kw={"linewidth": 1})
    for at, (time, _, high) in enumerate(times):
        axis.text(max(time, high), at, f"  {time:.3g}", va="center", fontsize=7)
    axis.set_xscale("log")
    axis.set_xlim(10.0 ** np.floor(np.log10(times[:, 0].min() / 2)), times[:, 0].max() * 6)
    axis.set_title(panel.title, fontsize=8)
    axis.set_xlabel("ms", fontsize=8)
