"""A program as a graph: parameters, terms, variables, and what depends on what."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opteq_cvx.extras import require
from opteq_cvx.ir.linmap import coefficients
from opteq_cvx.ir.param import Stage, leaves
from opteq_cvx.ir.program import Affine, Program, Term
from opteq_cvx.plot.axes import COLORS, on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {"weight": COLORS[0], "input": COLORS[1], "term": COLORS[2], "variable": COLORS[6], "tied": COLORS[4]}
STAGES = {Stage.INPUT: "input", Stage.TIED: "tied"}
HEIGHT = 0.45
"""Inches for one box, of a new figure."""


def program_graph(program: Program, *, title: str | None = None, axes: "Axes | None" = None) -> "Axes":
    """Parameters on the left, terms in the middle, variables on the right, a line wherever one depends on another.

    Terms are called by their atom. Dashed arrows lead to a tied parameter from the variables and weights that give it
    its value.

    Args:
        program: for instance `oc.explain(problem).program` as declared, or `.plan.program` as compiled.
        title: above the graph; by default how many terms there are.
        axes: where to draw; by default a new figure, as high as it must be.
    """
    parameters = {p.name: STAGES.get(p.stage, "weight") for p in program.parameters}
    terms = {str(k): term.atom for k, term in enumerate(program.terms)}
    rows = max(len(parameters), len(terms), len(program.variables), 1)
    if axes is None:
        size = (6.0, max(2.2, HEIGHT * rows + 0.8))
        axes = require("matplotlib.pyplot", extra="plot").subplots(figsize=size, layout="constrained")[1]
    axes = on(axes, x="", y="", title=f"Program of {len(terms)} terms" if title is None else title)
    left = _column(axes, 0.0, {name: name for name in parameters}, parameters)
    middle = _column(axes, 1.0, terms, dict.fromkeys(terms, "term"))
    names = {v.name: v.name for v in program.variables}
    right = _column(axes, 2.0, names, dict.fromkeys(names, "variable"))
    for k, term in enumerate(program.terms):
        here = middle[str(k)]
        ends = [left[name] for name in _reads(term)] + [right[name] for name, _ in term.arg.parts]
        for x, y in ends:
            axes.plot([x, here[0]], [y, here[1]], color="#A0A0A0", linewidth=0.9, zorder=1)
    for tie in program.ties:
        for name, _ in tie.value.parts:
            _arrow(axes, right[name], left[tie.parameter], bend=0.25)
        for name in _named(tie.value):
            _arrow(axes, left[name], left[tie.parameter], bend=0.4 if left[name][1] > left[tie.parameter][1] else -0.4)
    _frame(axes, {*parameters.values(), "term", "variable"})
    return axes


def _reads(term: Term) -> list[str]:
    """The parameters that a term depends on, each once."""
    weight = [term.weight] if term.weight is not None else []
    inside = [leaf.name for e in (*term.data.values(), *weight) for leaf in leaves(e)]
    return list(dict.fromkeys([*_named(term.arg), *inside]))


def _named(value: Affine) -> list[str]:
    """The parameters in an affine expression, each once."""
    maps = [c for _, m in value.parts for c in coefficients(m)]
    return list(dict.fromkeys(leaf.name for e in (*maps, value.offset) for leaf in leaves(e)))


def _column(axes: Any, x: float, labels: Mapping[str, str], kinds: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """One column of boxes; returns where each stands."""
    places = {name: (x, (k + 0.5) / len(labels)) for k, name in enumerate(reversed(list(labels)))}
    for name, place in places.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": KINDS[kinds[name]], "linewidth": 1.5}
        axes.text(*place, labels[name], ha="center", va="center", zorder=3, bbox=box)
    return places


def _arrow(axes: Any, tail: Sequence[float], head: Sequence[float], *, bend: float) -> None:
    """A dashed arc from a variable, or a weight that multiplies it, to the parameter that is tied to them."""
    look = {"arrowstyle": "-|>", "color": KINDS["tied"], "linestyle": "--", "connectionstyle": f"arc3,rad={bend}"}
    axes.annotate("", xy=head, xytext=tail, zorder=2, arrowprops=look | {"shrinkA": 12, "shrinkB": 14})


def _frame(axes: Any, kinds: set[str]) -> None:
    """Column headings in place of ticks, and a legend of the colors."""
    axes.set(xlim=(-0.45, 2.35), ylim=(-0.02, 1.02), yticks=[], xticks=[0, 1, 2])
    axes.set_xticklabels(["parameters", "terms", "variables"])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for kind in KINDS:
        if kind in kinds:
            axes.plot([], [], "s", markerfacecolor="white", markeredgewidth=1.5, color=KINDS[kind], label=kind)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=len(kinds), handletextpad=0.2)
