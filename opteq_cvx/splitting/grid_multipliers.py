"""Multipliers of the row sums and the column sums that one transport polytope stands for.

A normal g at the point p is a_i + b_j where p_ij > 0 and at most that elsewhere: a and b are the potentials of the
projection of p + g. Of a last sum that was not declared the multiplier is 0: a constant moves from b to a.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.atoms.marginals import normal
from opteq_cvx.ir.frozen import Frozen, IntArray, Shape
from opteq_cvx.ir.program import Term
from opteq_cvx.passes.rows import Sums


@dataclass(frozen=True, slots=True, eq=False)
class GridPlanes(Frozen):
    """The coordinates (m, n) of a transport term, and the two terms of sums that it replaced.

    Attributes:
        index: the coordinates.
        terms: places of the row sums and of the column sums among the terms that were read.
        lines: the row, and the column, that each sum of them is of.
        factors: the coefficient of the sums.
    """

    index: IntArray
    terms: tuple[int, int]
    lines: tuple[IntArray, IntArray]
    factors: tuple[float, float]

    def __call__(self, g: Tensor, p: Tensor, shapes: Sequence[Shape]) -> tuple[dict[int, Tensor], Tensor]:
        """The multipliers by term, in these shapes, and what of g (B, n) is left for the bounds."""
        at = torch.as_tensor(self.index.reshape(-1).copy(), device=g.device)
        event = (-1, *self.index.shape)
        here = g[:, at].reshape(event)
        potentials = list(normal(p[:, at].reshape(event), here))
        left = here - potentials[0].unsqueeze(-1) - potentials[1].unsqueeze(-2)
        for k in (0, 1):
            missing = np.setdiff1d(np.arange(self.index.shape[k]), self.lines[k])
            if missing.size:
                move = potentials[k][:, int(missing[0])].unsqueeze(-1)
                potentials[k], potentials[1 - k] = potentials[k] - move, potentials[1 - k] + move
        out = {}
        for k in (0, 1):
            line = torch.as_tensor(self.lines[k], device=g.device)
            out[self.terms[k]] = (potentials[k][:, line] / self.factors[k]).reshape(-1, *shapes[k])
        return out, g.index_copy(1, at, left.reshape(g.shape[0], -1))


def grid_planes(made: Sequence[tuple[Term, IntArray]], planes: Sequence[tuple[int, Sums]]) -> tuple[GridPlanes, ...]:
    """The grids among the terms that passes made, with the planes (place, sums) on their coordinates."""
    found = []
    for term, index in made:
        if term.atom != "transport":
            continue
        sides: dict[int, tuple[int, IntArray, float]] = {}
        for place, sums in planes:
            if not np.isin(sums.index, index).all():
                continue
            position = {int(c): k for k, c in enumerate(index.reshape(-1))}
            moved = np.moveaxis(sums.index, sums.axes, range(-len(sums.axes), 0))
            groups = moved.reshape(-1, int(np.prod([sums.index.shape[a] for a in sums.axes])))
            where = np.array([[position[int(c)] for c in row[:2]] for row in groups])
            rows = where // index.shape[1]
            along = 0 if bool((rows[:, 0] == rows[:, 1]).all()) else 1
            line = rows[:, 0] if along == 0 else where[:, 0] % index.shape[1]
            sides[along] = (place, line, float(sums.uniform or 1.0))
        one, other = sides[0], sides[1]
        found.append(GridPlanes(index, (one[0], other[0]), (one[1], other[1]), (one[2], other[2])))
    return tuple(found)
