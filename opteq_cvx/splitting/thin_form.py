"""The form of programs whose P + σ + KᵀRK is a diagonal plus few rows: P = D + Uᵀ diag(c) U, K of entries and rows.

A portfolio with a factor model, bounds and a budget; regression on few samples with separable penalties; a separable
quadratic under bounds and a few constraints. Nothing n × n or m × n is formed, and H⁻¹ costs O(nr) for r rows.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.ir.frozen import Frozen, IntArray, freeze_index, size
from opteq_cvx.ir.layout import Layout, Selection, as_selection
from opteq_cvx.ir.linmap import Identity
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.maps.operator import dense
from opteq_cvx.splitting.blocks import evaluate
from opteq_cvx.splitting.graph_form import GraphForm
from opteq_cvx.splitting.pieces import Factored, Piece, factored
from opteq_cvx.splitting.quadratic import QuadraticPart, constant_scalar
from opteq_cvx.splitting.system import matmul

FEWEST, SHARE = 128, 0.25
"""From this many unknowns on, and with at most this share of them as rows, the form pays."""


@dataclass(frozen=True, slots=True, eq=False)
class ThinForm(Frozen):
    """A program in graph form whose P and K are mostly diagonal.

    Row `entries[i]` of K has one entry, in column `columns[i]`; the rows `full` are dense; `order` puts
    [entries, full] in the order of K's rows, None where it is that. `bare` are the coordinates without curvature of
    their own and without a row of one entry, which only dense rows hold.
    """

    graph: GraphForm
    diagonal: QuadraticPart
    factors: Factored
    selections: tuple[Selection | None, ...]
    entries: IntArray = field(init=False)
    columns: IntArray = field(init=False)
    full: IntArray = field(init=False)
    order: IntArray | None = field(init=False)
    bare: IntArray = field(init=False)

    def __post_init__(self) -> None:
        none = np.zeros(0, dtype=np.int64)
        entries, columns, full = [none], [none], [none]
        for block, selection in zip(self.graph.blocks, self.selections, strict=True):
            rows = block.index.reshape(-1)
            if selection is None:
                full.append(rows)
            else:
                entries.append(rows)
                columns.append(selection.index.reshape(-1))
        for name, parts in (("entries", entries), ("columns", columns), ("full", full)):
            object.__setattr__(self, name, freeze_index(np.concatenate(parts)))
        rows = np.concatenate([self.entries, self.full])
        in_order = bool((rows == np.arange(rows.size)).all())
        object.__setattr__(self, "order", None if in_order else freeze_index(np.argsort(rows)))
        reached = np.zeros(self.layout.n, dtype=bool)
        reached[self.columns] = True
        for found in (as_selection(t.arg, self.layout) for t in self.diagonal.quadratic):
            if found is not None:
                reached[found.index.reshape(-1)] = True
        ridge = any(isinstance(p.k, Identity) for p in self.factors.pieces)
        object.__setattr__(self, "bare", freeze_index(none if ridge else np.flatnonzero(~reached)))

    @staticmethod
    def of(graph: GraphForm, *, paying: bool = True) -> "ThinForm | str":
        """The form of a program, or why it has none; with `paying`, none that is no cheaper than a dense factor."""
        layout = graph.layout
        if paying and layout.n < FEWEST:
            return f"{layout.n} unknowns are few"
        if not graph.smooth.certified:
            return "the quadratic is not semidefinite by construction"
        plain = tuple(t for t in graph.smooth.quadratic if QuadraticPart(layout, (t,), ()).diagonal)
        curved = tuple(t for t in graph.smooth.quadratic if not any(t is p for p in plain))
        factors = factored(layout, curved, constant_scalar)
        if factors is None:
            return "the quadratic shows no factors"
        if any(p.factor < 0 for p in factors.pieces):
            return "a part of the quadratic is subtracted"
        selections = tuple(as_selection(t.arg, layout) for t in graph.terms)
        form = ThinForm(graph, QuadraticPart(layout, plain, ()), factors, selections)
        if paying and form.rank > SHARE * layout.n:
            return f"P and K have {form.rank} dense rows for {layout.n} unknowns"
        return form

    @property
    def layout(self) -> Layout:
        """Of the variables."""
        return self.graph.layout

    @property
    def thin(self) -> tuple[Piece, ...]:
        """The pieces of P that are rows; the others are diagonal."""
        return tuple(p for p in self.factors.pieces if not isinstance(p.k, Identity))

    @property
    def rank(self) -> int:
        """The number of dense rows of P and of K."""
        return sum(size(p.k.shape_out) for p in self.thin) + int(self.full.size)

    def theta(self, env: Environment) -> tuple[Tensor, ...]:
        """(q, b (1|B, m), D (1|B, n), U (1|B, r, n), c (1|B, r), s (1|B, e), A (1|B, a, n), *block data)."""
        graph, n = self.graph, self.layout.n
        zero = torch.zeros((1, n), dtype=env.dtype, device=env.device)
        d = self.diagonal.hessian(env) + zero
        rows, weights, scales, full, offsets = [], [], [], [], []
        for piece in self.factors.pieces:
            count = size(piece.k.shape_out)
            c = zero.new_full((1, count), piece.factor)
            if piece.weight is not None:
                w = env(piece.weight)
                w = w.reshape(w.shape[0], *(1,) * (len(piece.k.shape_out) - (w.ndim - 1)), *w.shape[1:])
                c = c * w.expand(-1, *piece.k.shape_out).reshape(w.shape[0], count)
            if isinstance(piece.k, Identity):
                d = d + c
            else:
                rows.append(dense(piece.k, env))
                weights.append(c)
        for term, selection in zip(graph.terms, self.selections, strict=True):
            count, offset = size(term.arg.shape), env(term.arg.offset)
            offsets.append(offset.expand(-1, *term.arg.shape).reshape(offset.shape[0], count))
            if selection is None:
                full.append(graph.smooth.columns(term.arg, env))
            elif selection.scale is None:
                scales.append(zero.new_ones(1, count))
            else:
                s = env(selection.scale)
                shape = selection.index.shape
                s = s.reshape(s.shape[0], *(1,) * (len(shape) - (s.ndim - 1)), *s.shape[1:])
                scales.append(s.expand(-1, *shape).reshape(s.shape[0], count))
        none, empty = zero[:, :0], zero[:, None, :][:, :0]
        parts = (_cat([empty, *rows]), _cat([none, *weights]), _cat([none, *scales]), _cat([empty, *full]))
        q, b = graph.smooth.gradient_at_zero(env), _cat([none, *offsets])
        return (q, b, d, *parts, *evaluate(graph.blocks, env))


@dataclass(frozen=True, slots=True)
class Thin:
    """D (1|B, n), U (1|B, r, n), c (1|B, r), s (1|B, e), A (1|B, a, n): products with P and K at one θ."""

    form: ThinForm
    d: Tensor
    u: Tensor
    c: Tensor
    s: Tensor
    a: Tensor

    def image(self, x: Tensor) -> Tensor:
        """Kx (B, m)."""
        form = self.form
        picked = self.s * x.index_select(1, _index(form.columns, x))
        rows = torch.cat([picked, matmul(x, self.a.mT)], dim=1) if form.full.size else picked
        return rows if form.order is None else rows.index_select(1, _index(form.order, x))

    def split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Of y (1|B, m), what belongs to rows with one entry and to dense rows."""
        return y.index_select(1, _index(self.form.entries, y)), y.index_select(1, _index(self.form.full, y))

    def scatter(self, e: Tensor) -> Tensor:
        """(1|B, e) summed into columns (1|B, n)."""
        return e.new_zeros(e.shape[0], self.form.layout.n).index_add(1, _index(self.form.columns, e), e)

    def back(self, y: Tensor) -> Tensor:
        """Kᵀy (B, n)."""
        single, full = self.split(y)
        total = self.scatter(self.s * single)
        return total + matmul(full, self.a) if self.form.full.size else total

    def joined(self, entries: Tensor, full: Tensor) -> Tensor:
        """Numbers of the rows with one entry (1|B, e) and of dense rows (1|B, a), in the order of K's rows."""
        rows = max(entries.shape[0], full.shape[0])
        both = torch.cat([entries.expand(rows, -1), full.expand(rows, -1)], dim=1)
        return both if self.form.order is None else both.index_select(1, _index(self.form.order, both))

    def rows(self) -> Tensor:
        """V (1|B, r + a, n): the dense rows of P and of K."""
        batch = max(self.u.shape[0], self.a.shape[0])
        return torch.cat([self.u.expand(batch, -1, -1), self.a.expand(batch, -1, -1)], dim=1)

    def curved(self, x: Tensor) -> Tensor:
        """Px (B, n)."""
        total = self.d * x
        return total + matmul(self.c * matmul(x, self.u.mT), self.u) if self.u.shape[1] else total

    def dense(self) -> tuple[Tensor, Tensor]:
        """P (1|B, n, n) and K (1|B, m, n)."""
        n = self.form.layout.n
        eye = torch.eye(n, dtype=self.d.dtype, device=self.d.device)
        p = torch.diag_embed(self.d) + self.u.mT @ (self.c[:, :, None] * self.u)
        k = torch.cat(
            [
                t.expand(max(self.s.shape[0], self.a.shape[0]), -1, -1)
                for t in (self.s[:, :, None] * eye[_index(self.form.columns, self.d)], self.a)
            ],
            dim=1,
        )
        return p, k if self.form.order is None else k.index_select(1, _index(self.form.order, k))


@dataclass(frozen=True, slots=True)
class Inverse:
    """(Δ + Vᵀ diag(ω) V)⁻¹ as Δ⁻¹ − Δ⁻¹VᵀMVΔ⁻¹: `flat` is Δ⁻¹ (1|B, n), V (1|B, r, n), M (1|B, r, r).

    Source: Sherman–Morrison–Woodbury, Golub & Van Loan, section 2.1.4.
    """

    flat: Tensor
    v: Tensor
    m: Tensor

    def __call__(self, right: Tensor) -> Tensor:
        """For right (B, n)."""
        x = self.flat * right
        return x - self.flat * matmul(matmul(matmul(x, self.v.mT), self.m), self.v) if self.v.shape[1] else x


def woodbury(delta: Tensor, v: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Δ⁻¹, M = √ω(I + √ωVΔ⁻¹Vᵀ√ω)⁻¹√ω and which samples they serve; Δ (1|B, n), V (1|B, r, n), ω ≥ 0 (1|B, r)."""
    flat, root = 1.0 / delta, weight.sqrt()
    inner = root[:, :, None] * ((v * flat[:, None, :]) @ v.mT) * root[:, None, :]
    inner = inner + torch.eye(v.shape[1], dtype=v.dtype, device=v.device)
    lower, info = torch.linalg.cholesky_ex(inner)
    m = torch.cholesky_solve(torch.diag_embed(root.expand(inner.shape[0], -1)), lower)
    return flat, root[:, :, None] * m, info == 0


def _index(index: IntArray, like: Tensor) -> Tensor:
    return torch.as_tensor(index.copy(), device=like.device)


def _cat(parts: list[Tensor]) -> Tensor:
    rows = max(p.shape[0] for p in parts)
    return torch.cat([p.expand(rows, *p.shape[1:]) for p in parts], dim=1)
