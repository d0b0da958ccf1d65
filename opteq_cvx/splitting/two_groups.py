"""The form that three-operator splitting iterates: a quadratic, and two groups of functions of coordinates of x.

Within a group the functions act on disjoint coordinates, across groups they overlap: rows and columns of a matrix, a
set and a penalty on the same vector.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from opteq_cvx.ir.frozen import Frozen, IntArray, freeze_index
from opteq_cvx.ir.layout import Layout, as_selection
from opteq_cvx.ir.program import Program, Term
from opteq_cvx.splitting.blocks import Block, Overlap, blocks_of, inverse_order, stacked
from opteq_cvx.splitting.operators import Maps
from opteq_cvx.splitting.quadratic import QuadraticPart
from opteq_cvx.splitting.structure import SMOOTH


@dataclass(frozen=True, slots=True, eq=False)
class TwoGroups(Frozen):
    """½xᵀ(D + P)x + qᵀx + f(x) + g(x): D diagonal, P through its maps, f = `first` and g = `second` disjoint blocks.

    `joint` are the blocks of both, on rows of their own, row i being coordinate `picked[i]` of x.
    """

    layout: Layout
    smooth: QuadraticPart
    diagonal: QuadraticPart
    maps: Maps
    sizes: Maps
    first: tuple[Block, ...]
    second: tuple[Block, ...]
    orders: tuple[IntArray | None, IntArray | None]
    joint: tuple[Block, ...] = field(init=False)
    picked: IntArray = field(init=False)

    def __post_init__(self) -> None:
        blocks = (*self.first, *self.second)
        coordinates = [b.index.reshape(-1) for b in blocks] or [np.zeros(0, dtype=np.int64)]
        object.__setattr__(self, "joint", stacked(blocks))
        object.__setattr__(self, "picked", freeze_index(np.concatenate(coordinates)))

    @staticmethod
    def of(program: Program) -> "TwoGroups | str":
        """The form of a program, or why it has none."""
        layout = Layout.of(program)
        rest = tuple(t for t in program.terms if t.atom not in (*SMOOTH, "linear"))
        sides = two_sides(rest, layout)
        if isinstance(sides, str):
            return sides
        groups = [blocks_of(side, layout) for side in sides]
        first, second = groups
        for found in groups:
            if isinstance(found, Overlap):
                return found.reason
        assert isinstance(first, tuple)
        assert isinstance(second, tuple)
        quadratic = tuple(t for t in program.terms if t.atom in SMOOTH)
        plain = tuple(t for t in quadratic if QuadraticPart(layout, (t,), ()).diagonal)
        curved = tuple(t for t in quadratic if not any(t is p for p in plain))
        maps = Maps(layout, (), curved)
        return TwoGroups(
            layout,
            QuadraticPart(layout, quadratic, tuple(t for t in program.terms if t.atom == "linear")),
            QuadraticPart(layout, plain, ()),
            maps,
            maps.magnitudes,
            first,
            second,
            (inverse_order(first, layout.n), inverse_order(second, layout.n)),
        )

    @property
    def n(self) -> int:
        """The number of coordinates."""
        return self.layout.n


def two_sides(terms: Sequence[Term], layout: Layout) -> tuple[tuple[Term, ...], tuple[Term, ...]] | str:
    """The terms in two groups without overlap inside either: a colouring of the graph of overlaps by two colours.

    O(terms² · coordinates). A string says which terms stand against it.
    """
    for term in terms:
        alone = blocks_of((term,), layout)
        if isinstance(alone, Overlap):
            return alone.reason
    beside = _overlaps(terms, layout)
    side: dict[int, int] = {}
    for start in range(len(terms)):
        if start in side:
            continue
        side[start], queue = 0, deque([start])
        while queue:
            here = queue.popleft()
            for other in beside[here]:
                if other not in side:
                    side[other] = 1 - side[here]
                    queue.append(other)
                elif side[other] == side[here]:
                    return f"{terms[other].origin}, {terms[here].origin} and others overlap in more than two groups"
    split = ([terms[i] for i in range(len(terms)) if side[i] == colour] for colour in (0, 1))
    one, two = (tuple(group) for group in split)
    return one, two


def _overlaps(terms: Sequence[Term], layout: Layout) -> list[list[int]]:
    """For each term those that share coordinates with it and cannot be merged."""
    masks = []
    for term in terms:
        selection = as_selection(term.arg, layout)
        assert selection is not None, "checked by `blocks_of`"
        mask = np.zeros(layout.n, dtype=bool)
        mask[selection.index.reshape(-1)] = True
        masks.append(mask)
    beside: list[list[int]] = [[] for _ in terms]
    for i, one in enumerate(masks):
        for j in range(i):
            if bool((one & masks[j]).any()) and isinstance(blocks_of((terms[j], terms[i]), layout), Overlap):
                beside[i].append(j)
                beside[j].append(i)
    return beside
