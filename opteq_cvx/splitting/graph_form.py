"""Graph form: min ½xᵀPx + qᵀx + Σ g_i(K_i x + b_i), non-quadratic terms on rows of their own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.atoms import atom
from opteq_cvx.ir.frozen import Frozen, FrozenDict, freeze_index, size
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.linmap import stage as map_stage
from opteq_cvx.ir.param import Stage
from opteq_cvx.ir.program import Program, Term
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.blocks import Block, evaluate
from opteq_cvx.splitting.contract import Certificate
from opteq_cvx.splitting.groups import Rows
from opteq_cvx.splitting.quadratic import QuadraticPart
from opteq_cvx.splitting.structure import SMOOTH, Structure


@dataclass(frozen=True, slots=True, eq=False)
class GraphForm(Frozen):
    """A program over rows: block i acts on the contiguous rows `blocks[i].index` of y = Kx + b (length m)."""

    layout: Layout
    smooth: QuadraticPart
    terms: tuple[Term, ...]
    blocks: tuple[Block, ...]
    m: int

    @staticmethod
    def of(program: Program) -> "GraphForm":
        """Stack the arguments of all proximal terms."""
        layout = Layout.of(program)
        quadratic = tuple(t for t in program.terms if t.atom in SMOOTH)
        linear = tuple(t for t in program.terms if t.atom == "linear")
        terms = tuple(t for t in program.terms if t.atom not in (*SMOOTH, "linear"))
        blocks, start = [], 0
        for term in terms:
            count = size(term.arg.shape)
            index = freeze_index(np.arange(start, start + count).reshape(term.arg.shape))
            f = atom(term.atom).from_static(term.static)
            blocks.append(Block(f, index, term.origin, weight=term.weight, data=FrozenDict(term.data), term=term))
            start += count
        return GraphForm(layout, QuadraticPart(layout, quadratic, linear), terms, tuple(blocks), start)

    def theta(self, env: Environment) -> tuple[Tensor, ...]:
        """(P (1|B, n, n), q (1|B, n), K (1|B, m, n), b (1|B, m), *block data)."""
        p = self.smooth.hessian(env)
        p = torch.diag_embed(p) if self.smooth.diagonal else p
        return (p, self.smooth.gradient_at_zero(env), *self._rows(env), *evaluate(self.blocks, env))

    def _rows(self, env: Environment) -> tuple[Tensor, Tensor]:
        maps = [self.smooth.columns(t.arg, env) for t in self.terms]
        offsets = [env(t.arg.offset) for t in self.terms]
        like = torch.zeros((1, 0, self.layout.n), dtype=env.dtype, device=env.device)
        return _cat([like, *maps]), _cat([like[:, :, 0], *(o.reshape(o.shape[0], size(o.shape[1:])) for o in offsets)])

    @property
    def stage(self) -> Stage:
        """The latest stage of what K depends on."""
        return max((map_stage(m) for t in self.terms for _, m in t.arg.parts), default=Stage.CONSTANT)

    @property
    def equality(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which rows belong to equality constraints."""
        out = np.zeros(self.m, dtype=bool)
        for block in self.blocks:
            if block.f.name == "zero":
                out[block.index.reshape(-1)] = True
        return out

    @property
    def groups(self) -> Sequence[Rows]:
        """The rows of each block whose prox couples some."""
        return coupled(self.blocks)

    def certificate(self, theta: Sequence[Tensor], convex: Tensor | None) -> Certificate:
        """Signs of weights and emptiness of data-dependent sets; no modulus is known."""
        return Structure(self.layout, self.smooth, self.blocks, None).certificate(theta[4:], None, convex)


def coupled(blocks: Sequence[Block]) -> Sequence[Rows]:
    """The rows of each block whose prox couples entries."""
    found = [Rows.of(b.f, b.index) for b in blocks if b.index.size]
    return tuple(rows for rows in found if rows.width > 1)


def _cat(parts: Sequence[Tensor]) -> Tensor:
    rows = max(p.shape[0] for p in parts)
    return torch.cat([p.expand(rows, *p.shape[1:]) for p in parts], dim=1)
