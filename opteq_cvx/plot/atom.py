"""A scalar function beside its prox."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from opteq_cvx.atoms.contract import Atom
from opteq_cvx.plot.axes import COLORS, on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 801


def prox(
    atom: Atom,
    *,
    step: float = 1.0,
    data: Mapping[str, Tensor] | None = None,
    low: float = -3.0,
    high: float = 3.0,
    axes: "Axes | None" = None,
) -> "Axes":
    """The graph of f and of prox_{step f} on [low, high] for an atom that acts on single numbers.

    Where f is +∞ nothing is drawn.

    Args:
        atom: an instance, its static attributes set.
        step: the step γ of the prox.
        data: the atom's dynamic attributes, by name, each a scalar tensor.
        low: left end of the points.
        high: right end of the points.
        axes: where to draw; by default a new figure.
    """
    x = torch.linspace(low, high, POINTS, dtype=torch.float64)[:, None]
    values = {k: v.to(torch.float64).reshape(1, 1) for k, v in (data or {}).items()}
    f = atom.value(x, values)[:, 0]
    moved = atom.prox(x, torch.full_like(x, step), values)[:, 0]
    axes = on(axes, x="x", y="", title=f"{atom.name}: {atom.formula}")
    finite = f.masked_fill(~torch.isfinite(f), torch.nan)
    axes.plot(x[:, 0].numpy(), finite.numpy(), color=COLORS[0], label="f(x)")
    axes.plot(x[:, 0].numpy(), moved.numpy(), color=COLORS[1], linestyle="--", label=f"prox, step {step:g}")
    axes.plot(x[:, 0].numpy(), x[:, 0].numpy(), color="#A0A0A0", linewidth=0.8, linestyle=":", label="x")
    axes.legend(frameon=False)
    return axes
