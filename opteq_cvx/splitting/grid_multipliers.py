"""Multipliers of the row sums and the column sums that one transport polytope stands for.

A normal g at the point p is a_i + b_j where p_ij > 0 and at most that elsewhere: a and b are the potentials of the
projection of p + g. Of a last sum that was not declared the multiplier is 0: a constant moves from b to a.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.atoms.marginals import normal
from opteq_cvx.ir.frozen import Frozen, IntArray, Shape
from opteq_cvx.ir.program import Term
from opteq_cvx.passes.rows import Sums


@dataclass(frozen=True, slots=True, eq=False)
class Side(Frozen):
    """A term of row sums, or of column sums: its place among the terms that were read, the row (or column) that each
    sum is of, and their coefficient."""

    term: int
    lines: IntArray
    factor: float


@dataclass(frozen=True, slots=True, eq=False)
class GridPlanes(Frozen):
    """The coordinates (m, n) of a transport term, and the terms of row sums and of column sums that it replaced."""

    index: IntArray
    sides: tuple[tuple[Side, ...], tuple[Side, ...]]

    @property
    def terms(self) -> tuple[int, ...]:
        """Places of all these terms."""
        return tuple(side.term for along in self.sides for side in along)

    def __call__(self, g: Tensor, p: Tensor, shapes: Mapping[int, Shape]) -> tuple[dict[int, Tensor], Tensor]:
        """The multipliers by term, in these shapes, and what of g (B, n) is left for the bounds."""
        at = torch.as_tensor(self.index.reshape(-1).copy(), device=g.device)
        event = (-1, *self.index.shape)
        here = g[:, at].reshape(event)
        potentials = list(normal(p[:, at].reshape(event), here))
        left = here - potentials[0].unsqueeze(-1) - potentials[1].unsqueeze(-2)
        for k, along in enumerate(self.sides):
            missing = np.setdiff1d(np.arange(self.index.shape[k]), np.concatenate([side.lines for side in along]))
            if missing.size:
                move = potentials[k][:, int(missing[0])].unsqueeze(-1)
                potentials[k], potentials[1 - k] = potentials[k] - move, potentials[1 - k] + move
        out = {}
        for k, along in enumerate(self.sides):
            for side in along:
                own = potentials[k][:, torch.as_tensor(side.lines, device=g.device)] / side.factor
                out[side.term] = own.reshape(-1, *shapes[side.term])
        return out, g.index_copy(1, at, left.reshape(g.shape[0], -1))


def grid_planes(made: Sequence[tuple[Term, IntArray]], planes: Sequence[tuple[int, Sums]]) -> tuple[GridPlanes, ...]:
    """The grids among the terms that passes made, with the planes (place, sums) on their coordinates."""
    found = []
    for term, index in made:
        if term.atom != "transport":
            continue
        sides: tuple[list[Side], list[Side]] = ([], [])
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
            sides[along].append(Side(place, line, float(sums.uniform or 1.0)))
        found.append(GridPlanes(index, (tuple(sides[0]), tuple(sides[1]))))
    return tuple(found)
