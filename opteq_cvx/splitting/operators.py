"""K, b and P of a program through its structured maps, never as matrices: what primal–dual steps multiply with.

The coefficients that the maps look up are recorded in order of first use, and travel in θ as tensors; `bind` looks the
same maps up again in the same order. So θ holds what its leaves hold, and memory is that of the maps' own outputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import scipy.sparse as sp
import torch
from torch import Tensor

from opteq_cvx.ir.frozen import Frozen, size
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.linmap import LinearMap
from opteq_cvx.ir.param import Apply, Const, ParamExpr
from opteq_cvx.ir.program import Affine, Term
from opteq_cvx.maps.base import Lookup, Operator, align
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.maps.matrix import Matrix, matrix_of
from opteq_cvx.maps.operator import bind
from opteq_cvx.splitting.flat import join, split


class Recorder:
    """A lookup that remembers, in order of first use, what it was asked for."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup
        self.seen: dict[int, tuple[ParamExpr, Tensor]] = {}

    def __call__(self, expr: ParamExpr) -> Tensor:
        if id(expr) not in self.seen:
            self.seen[id(expr)] = (expr, self.lookup(expr))
        return self.seen[id(expr)][1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What was looked up."""
        return tuple(value for _, value in self.seen.values())


def replay(tensors: Sequence[Tensor]) -> Recorder:
    """The lookup that gives recorded tensors back to the same questions."""
    rest: Iterator[Tensor] = iter(tensors)
    return Recorder(lambda _: next(rest))


@dataclass(frozen=True, slots=True)
class Curve:
    """One quadratic term: ⟨w, (Ax)²⟩, or w·(Ax)ᵀQ(Ax), A the linear part of its argument."""

    maps: tuple[tuple[str, Operator], ...]
    weight: Tensor | None
    matrix: Matrix | None


@dataclass(frozen=True, slots=True)
class Products:
    """x ↦ Kx (B, m), y ↦ Kᵀy (B, n), x ↦ Px (B, n) at the values of one call."""

    layout: Layout
    shapes: tuple[tuple[int, ...], ...]
    rows: tuple[tuple[tuple[str, Operator], ...], ...]
    curves: tuple[Curve, ...]

    def image(self, x: Tensor) -> Tensor:
        """Kx (B, m), without the offset."""
        parts, out = split(x, self.layout), list[Tensor]()
        for shape, operators in zip(self.shapes, self.rows, strict=True):
            y = _total([k.apply(parts[name]) for name, k in operators])
            out.append(x.new_zeros(x.shape[0], size(shape)) if y is None else _flat(y, shape))
        return _cat(out) if out else x.new_zeros(x.shape[0], 0)

    def back(self, y: Tensor) -> Tensor:
        """Kᵀy (B, n)."""
        found: dict[str, Tensor] = {}
        pieces = y.split([size(s) for s in self.shapes], dim=1)
        for piece, shape, operators in zip(pieces, self.shapes, self.rows, strict=True):
            for name, k in operators:
                new = k.adjoint(piece.reshape(piece.shape[0], *shape))
                found[name] = found[name] + new if name in found else new
        return join(found, self.layout, y) if found else y.new_zeros(y.shape[0], self.layout.n)

    def curved(self, x: Tensor) -> Tensor:
        """Px (B, n), P of the quadratic terms that are not diagonal."""
        parts, found = split(x, self.layout), dict[str, Tensor]()
        for curve in self.curves:
            a = _total([k.apply(parts[name]) for name, k in curve.maps])
            assert a is not None, "a quadratic of no variable is a constant"
            if curve.matrix is not None:
                flat = a.flatten(1)
                a = (curve.matrix.rows(flat) + curve.matrix.transposed.rows(flat)).reshape(-1, *a.shape[1:])
                scale = 1.0
            else:
                scale = 2.0
            if curve.weight is not None:
                a = a * align(curve.weight, a.ndim - 1)
            for name, k in curve.maps:
                new = scale * k.adjoint(a)
                found[name] = found[name] + new if name in found else new
        return join(found, self.layout, x) if found else x.new_zeros(x.shape[0], self.layout.n)


@dataclass(frozen=True, slots=True, eq=False)
class Maps(Frozen):
    """The maps of proximal terms (K, row after row) and of quadratic terms (P) over a layout."""

    layout: Layout
    terms: tuple[Term, ...]
    quadratic: tuple[Term, ...]

    @property
    def m(self) -> int:
        """The number of rows of K."""
        return sum(size(t.arg.shape) for t in self.terms)

    def tensors(self, env: Environment) -> tuple[Tensor, ...]:
        """The values of all coefficients, for `bind`."""
        recorder = Recorder(env)
        self._products(recorder)
        return recorder.tensors

    def bind(self, tensors: Sequence[Tensor]) -> Products:
        """The products at the values that `tensors` gave."""
        return self._products(replay(tensors))

    def offset(self, env: Environment) -> Tensor:
        """b (1|B, m)."""
        flat = [_flat(env(t.arg.offset), t.arg.shape) for t in self.terms]
        if not flat:
            return torch.zeros((1, 0), dtype=env.dtype, device=env.device)
        return _cat(flat)

    def _products(self, lookup: Lookup) -> Products:
        rows = tuple(_bound(t.arg, lookup) for t in self.terms)
        curves = []
        for t in self.quadratic:
            weight = None if t.weight is None else lookup(t.weight)
            matrix = matrix_of(t.data["P"], lookup) if t.atom == "quad_form" else None
            curves.append(Curve(_bound(t.arg, lookup), weight, matrix))
        return Products(self.layout, tuple(t.arg.shape for t in self.terms), rows, tuple(curves))

    @property
    def magnitudes(self) -> "Maps":
        """The same maps with every coefficient replaced by its absolute value: |K|, |P| ≤ theirs, entry by entry.

        |AB| ≤ |A||B| and |A + B| ≤ |A| + |B|. Its lookups come in the order of those of the maps themselves.
        """
        return Maps(self.layout, tuple(_absolute(t) for t in self.terms), tuple(_absolute(t) for t in self.quadratic))


def _bound(arg: Affine, lookup: Lookup) -> tuple[tuple[str, Operator], ...]:
    return tuple((name, bind(m, lookup)) for name, m in arg.parts)


def _absolute(term: Term) -> Term:
    """A term whose maps keep constants that stay sparse as their absolute values; dense ones are taken at lookup."""
    parts = tuple((name, _sparse_absolute(m)) for name, m in term.arg.parts)
    data = {key: _sparse_absolute(value) for key, value in term.data.items()}
    return replace(term, arg=Affine(parts, term.arg.offset), data=type(term.data)(data))


def _sparse_absolute(node: Any) -> Any:
    """`node` with the absolute values of its sparse matrices, all else the same objects."""
    if isinstance(node, sp.csr_array):
        return abs(node)
    if isinstance(node, tuple):
        changed = tuple(_sparse_absolute(part) for part in node)
        return node if all(a is b for a, b in zip(node, changed, strict=True)) else changed
    if isinstance(node, Const):
        return Const(abs(node.value)) if node.sparse else node
    if isinstance(node, Apply) or not is_dataclass(node) or not isinstance(node, LinearMap):
        return node
    changes = {f.name: _sparse_absolute(getattr(node, f.name)) for f in fields(node) if f.init}
    same = all(getattr(node, key) is value for key, value in changes.items())
    return node if same else replace(node, **changes)


def _total(parts: Sequence[Tensor]) -> Tensor | None:
    total: Tensor | None = None
    for part in parts:
        total = part if total is None else total + part
    return total


def _cat(parts: Sequence[Tensor]) -> Tensor:
    """Side by side; what is shared is repeated for the samples of the others."""
    if len(parts) == 1:
        return parts[0]
    rows = max(p.shape[0] for p in parts)
    return torch.cat([p.expand(rows, -1) for p in parts], dim=1)


def _flat(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x.reshape(x.shape[0], size(shape))
