"""The form that PDHG iterates: D, P, q and f on coordinates, g on the rows of Kx + b, nothing n × n formed.

Source: Condat, *A primal–dual splitting method*, JOTA 158 (2013), problem (1).
"""

from dataclasses import dataclass, replace

import numpy as np

from opteq_cvx.atoms import Trait, atom
from opteq_cvx.ir.frozen import Frozen, FrozenDict, IntArray, freeze_index, size
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.program import Program, Term
from opteq_cvx.splitting import blocks
from opteq_cvx.splitting.blocks import Block, blocks_of
from opteq_cvx.splitting.operators import Maps
from opteq_cvx.splitting.quadratic import QuadraticPart
from opteq_cvx.splitting.structure import SMOOTH


@dataclass(frozen=True, slots=True, eq=False)
class SaddleForm(Frozen):
    """A program as D, P, q, f on coordinates (`inner`) and g on the rows of Kx + b (`outer`, rows in order)."""

    layout: Layout
    smooth: QuadraticPart
    diagonal: QuadraticPart
    maps: Maps
    sizes: Maps
    inner: tuple[Block, ...]
    outer: tuple[Block, ...]
    order: IntArray | None

    @staticmethod
    def of(program: Program) -> "SaddleForm":
        """Separable terms of single coordinates go to f as long as they do not overlap, all others to g."""
        layout = Layout.of(program)
        quadratic = tuple(t for t in program.terms if t.atom in SMOOTH)
        linear = tuple(t for t in program.terms if t.atom == "linear")
        plain = tuple(t for t in quadratic if QuadraticPart(layout, (t,), ()).diagonal)
        curved = tuple(t for t in quadratic if not any(t is p for p in plain))
        inner, rows = _separated(tuple(t for t in program.terms if t.atom not in (*SMOOTH, "linear")), layout)
        outer, start = [], 0
        for term in rows:
            count = size(term.arg.shape)
            index = np.arange(start, start + count).reshape(term.arg.shape)
            f = atom(term.atom).from_static(term.static)
            data = FrozenDict(term.data)
            outer.append(Block(f, freeze_index(index), term.origin, weight=term.weight, data=data, term=term))
            start += count
        maps = Maps(layout, rows, curved)
        return SaddleForm(
            layout,
            QuadraticPart(layout, quadratic, linear),
            QuadraticPart(layout, plain, ()),
            maps,
            maps.magnitudes,
            inner,
            tuple(outer),
            blocks.inverse_order(inner, layout.n),
        )

    @property
    def n(self) -> int:
        """The number of coordinates."""
        return self.layout.n

    @property
    def m(self) -> int:
        """The number of rows."""
        return self.maps.m

    @property
    def joint(self) -> tuple[Block, ...]:
        """g's blocks on rows 0 … m − 1, then f's on rows m + coordinate."""
        return (*self.outer, *(replace(b, index=freeze_index(b.index + self.m)) for b in self.inner))


def _separated(terms: tuple[Term, ...], layout: Layout) -> tuple[tuple[Block, ...], tuple[Term, ...]]:
    """(blocks of f, terms of g)."""
    chosen: tuple[Term, ...] = ()
    found: tuple[Block, ...] = ()
    rest: list[Term] = []
    for term in terms:
        separable = Trait.SEPARABLE in atom(term.atom).from_static(term.static).traits
        tried = blocks_of((*chosen, term), layout) if separable else None
        if isinstance(tried, tuple):
            chosen, found = (*chosen, term), tried
        else:
            rest.append(term)
    return found, tuple(rest)
