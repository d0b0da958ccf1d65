"""A quadratic kept as a sum of factored pieces, P = Σ_i f_i K_iᵀ diag(w_i) K_i: products with P without P.

A piece may also be mixed, f (KᵀL + LᵀK); `merged` makes such pieces where factors share what they compute.

The K_i are structured linear maps (convolutions, thin matrices, differences), so that a product costs what its
factors cost and the memory is that of the variables. Bounds on the spectrum come from bounds on ‖K_i‖.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.ir.frozen import Array, Frozen, Shape, freeze_index, size
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.linmap import (
    Adjoint,
    Compose,
    Identity,
    LeftMul,
    LinearMap,
    Permute,
    Reshape,
    coefficients,
    compose,
    gather,
    sum_maps,
)
from opteq_cvx.ir.param import Apply, Const, ParamExpr, Stage, const, multiply
from opteq_cvx.ir.program import Term
from opteq_cvx.maps.base import Lookup, Operator
from opteq_cvx.maps.norm import norm_bound
from opteq_cvx.maps.operator import bind
from opteq_cvx.splitting.by_construction import map_norm
from opteq_cvx.splitting.map_cost import cost, has_conv

Range = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Piece(Frozen):
    """f·Kᵀ diag(w) K, f a number, w (an expression that broadcasts over K's outputs) or None for ones.

    With `other` L it is f (KᵀL + LᵀK), without a weight; `apart` says that K and L read disjoint entries of z.
    """

    k: LinearMap
    factor: float
    weight: ParamExpr | None = None
    other: LinearMap | None = None
    apart: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is a multiple of the identity, known now."""
        return isinstance(self.k, Identity) and self.weight is None

    def after(self, inner: LinearMap, factor: float, weight: ParamExpr | None) -> "Piece":
        """factor · weight · innerᵀ (this) inner, for a scalar weight."""
        w = self.weight if weight is None else weight if self.weight is None else multiply(weight, self.weight)
        return Piece(compose(self.k, inner), self.factor * factor, w)

    def known(self) -> Range | None:
        """(lower, upper) of its spectrum for every admissible parameter, None where nothing is known."""
        top = map_norm(self.k)
        if top is None:
            return None
        if self.other is not None:
            right = map_norm(self.other)
            return None if right is None else (-self._mixed * top * right, self._mixed * top * right)
        low = high = 1.0
        if isinstance(self.weight, Const):
            low, high = float(self.weight.dense().min(initial=np.inf)), float(self.weight.dense().max(initial=-np.inf))
        elif self.weight is not None:
            return None
        return _scaled(self.factor * low, self.factor * high, top * top, isometry=isinstance(self.k, Identity))

    def bounds(self, lookup: Lookup, like: Tensor) -> tuple[Tensor, Tensor]:
        """(lower, upper) (1|B,) of its spectrum at the present values."""
        norm = norm_bound(self.k, lookup, like=like)
        if self.other is not None:
            reach = self._mixed * norm * norm_bound(self.other, lookup, like=like)
            return -reach, reach
        square = norm.square()
        low = high = torch.full_like(square[:1], self.factor)
        if self.weight is not None:
            w = lookup(self.weight)
            w = self.factor * w.reshape(w.shape[0], -1)
            low, high = w.amin(dim=1), w.amax(dim=1)
        if isinstance(self.k, Identity):
            return low, high
        return (low * square).clamp_max(0.0), (high * square).clamp_min(0.0)

    @property
    def _mixed(self) -> float:
        """f or 2f: the spectrum of KᵀL + LᵀK lies within ±2‖K‖‖L‖, and within half of that where it is [0 X; Xᵀ 0]."""
        return abs(self.factor) * (1.0 if self.apart else 2.0)

    @property
    def flops(self) -> int:
        """Of one product."""
        mixed = 0 if self.other is None else 2 * cost(self.other) + size(self.k.shape_in)
        return 2 * cost(self.k) + size(self.k.shape_out) + mixed


def _simplest(piece: Piece) -> Piece:
    """A weight that is one number as a factor; the identity in place of a rearrangement R, since RᵀR = I."""
    if isinstance(piece.weight, Const) and size(piece.weight.shape) and not piece.weight.sparse:
        w = piece.weight.dense()
        if (w == w.flat[0]).all():
            piece = Piece(piece.k, piece.factor * float(w.flat[0]))
    if piece.weight is None and _rearranges(piece.k):
        return Piece(Identity(piece.k.shape_in), piece.factor)
    return piece


def _rearranges(m: LinearMap) -> bool:
    match m:
        case Identity() | Reshape() | Permute():
            return True
        case Adjoint(of=of):
            return _rearranges(of)
        case Compose(maps=maps):
            return all(_rearranges(part) for part in maps)
        case _:
            return False


def _scaled(a: float, b: float, square: float, *, isometry: bool) -> Range:
    low, high = min(a, b), max(a, b)
    return (low, high) if isometry else (min(low * square, 0.0), max(high * square, 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Factored(Frozen):
    """P on the flat vector of a layout; `convex` says that P ⪰ 0 is known from where the pieces come from."""

    n: int
    pieces: tuple[Piece, ...]
    convex: bool = False

    @property
    def exprs(self) -> tuple[ParamExpr, ...]:
        """The expressions that a product needs values of, each once; sparse constants stay sparse."""
        found: dict[int, ParamExpr] = {}
        for piece in self.pieces:
            inside = (*coefficients(piece.k), *(() if piece.weight is None else (piece.weight,)))
            inside += () if piece.other is None else coefficients(piece.other)
            found |= {id(e): e for e in inside if not (isinstance(e, Const) and e.sparse)}
        return tuple(found.values())

    @property
    def stage(self) -> Stage:
        """The latest stage of what P depends on."""
        return max((e.stage for e in self.exprs), default=Stage.CONSTANT)

    @property
    def ridge(self) -> float:
        """The multiple of the identity in P that is known now."""
        return sum(p.factor for p in self.pieces if p.plain)

    @property
    def known(self) -> Range | None:
        """(lower, upper) of P's spectrum by construction."""
        found = [p.known() for p in self.pieces]
        sure = [r for r in found if r is not None]
        if len(sure) < len(found):
            return None
        low, high = (sum(r[side] for r in sure) for side in (0, 1))
        return (max(low, 0.0) if self.convex else low), high

    @property
    def certified(self) -> bool:
        """Whether P ⪰ 0 by construction."""
        known = self.known
        squares = all(p.factor >= 0 and p.weight is None and p.other is None for p in self.pieces)
        return self.convex or squares or (known is not None and known[0] >= 0)

    @property
    def flops(self) -> int:
        """Of one product."""
        return sum(p.flops for p in self.pieces)

    @property
    def convolves(self) -> bool:
        """Whether a convolution is among the factors."""
        return any(has_conv(p.k) or (p.other is not None and has_conv(p.other)) for p in self.pieces)

    def bind(self, values: Sequence[Tensor]) -> "Bound":
        """P at the values of `exprs`."""
        table = {id(e): v for e, v in zip(self.exprs, values, strict=True)}

        def lookup(expr: ParamExpr) -> Tensor:
            return table[id(expr)]

        parts = []
        for piece in self.pieces:
            if not piece.plain:
                weight = None if piece.weight is None else lookup(piece.weight)
                other = None if piece.other is None else bind(piece.other, lookup)
                parts.append(Part(bind(piece.k, lookup), piece.factor, weight, other))
        return Bound(self, tuple(parts), lookup)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A `Piece` with values."""

    k: Operator
    factor: float
    weight: Tensor | None
    other: Operator | None

    def images(self, z: Tensor) -> list[Tensor]:
        """Kᵀ diag(w) K z (B, n), or KᵀL z and LᵀK z: to be added, times the factor."""
        image = self.k.apply(z)
        if self.other is not None:
            return [self.k.adjoint(self.other.apply(z)), self.other.adjoint(image)]
        if self.weight is not None:
            w = self.weight
            image = image * w.reshape(w.shape[0], *(1,) * (image.ndim - w.ndim), *w.shape[1:])
        return [self.k.adjoint(image)]


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """A `Factored` with values."""

    of: Factored
    parts: tuple[Part, ...]
    lookup: Lookup

    def rest(self, z: Tensor) -> list[tuple[float, Tensor]]:
        """(f_i, K_iᵀ diag(w_i) K_i z (B, n)) of the pieces that are not plain."""
        return [(part.factor, image) for part in self.parts for image in part.images(z)]

    def multiply(self, z: Tensor) -> Tensor:
        """P z, (B, n) → (B, n)."""
        total = self.of.ridge * z
        for factor, part in self.rest(z):
            total = torch.add(total, part, alpha=factor)
        return total

    def spectrum(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds (1|B,) on the spectrum: by construction where known, else from norm bounds at the values."""
        known = self.of.known
        if known is not None:
            return like.new_full((1,), known[0]), like.new_full((1,), known[1])
        low = high = like.new_full((1,), self.of.ridge)
        for piece in self.of.pieces:
            if not piece.plain:
                below, above = piece.bounds(self.lookup, like)
                low, high = low + below, high + above
        return low, high


def factored(layout: Layout, quadratic: Sequence[Term], weight_of: Callable[[Term], float | None]) -> Factored | None:
    """The quadratic terms of a program as pieces, where their form shows factors; else None.

    `weight_of` gives a term's weight where it is one constant number.
    """
    found: list[Piece] = []
    for term in quadratic:
        inner = whole_map(term, layout)
        scale = weight_of(term)
        if term.atom == "square":
            number = scale if scale is not None else 1.0
            found.append(Piece(inner, 2.0 * number, None if scale is not None else term.weight))
            continue
        pieces = pieces_of(term.data["P"])
        if pieces is None or (scale is None and term.weight is not None and size(term.weight.shape) != 1):
            return None
        flat = compose(Reshape(inner.shape_out, (size(inner.shape_out),), "C"), inner)
        weight = None if scale is not None else term.weight
        found += [p.after(flat, 2.0 * (scale if scale is not None else 1.0), weight) for p in pieces]
    return Factored(layout.n, tuple(_simplest(p) for p in found))


def whole_map(term: Term, layout: Layout) -> LinearMap:
    """The argument's linear part as one map of the flat vector of all variables."""
    total: LinearMap | None = None
    for name, m in term.arg.parts:
        part = compose(m, place(layout, name, m.shape_in))
        total = part if total is None else sum_maps(total, part)
    assert total is not None
    return total


def place(layout: Layout, name: str, shape: Shape) -> LinearMap:
    """The variable `name` as a map of the flat vector."""
    n, start = size(shape), layout.start(name)
    if n == layout.n:
        return Reshape((n,), shape, "C") if shape != (n,) else Identity((n,))
    return gather(freeze_index(np.arange(start, start + n).reshape(shape)), (layout.n,))


def pieces_of(p: ParamExpr) -> list[Piece] | None:
    """P (n, n) as pieces: identities and diagonals, Gram products, their multiples, sums and differences."""
    n = p.shape[0]
    match p:
        case Const():
            d = _diagonal(p)
            return None if d is None else [of_diagonal(d, n)]
        case Apply(op="add", args=args):
            found = [pieces_of(a) for a in args if a.shape == p.shape]
            known = [f for f in found if f is not None]
            return [piece for f in known for piece in f] if len(known) == len(args) else None
        case Apply(op="neg", args=(a,)):
            return _times(pieces_of(a), -1.0, None)
        case Apply(op="multiply", args=(c, a)) if size(c.shape) == 1 and a.shape == p.shape:
            number = float(c.dense().reshape(-1)[0]) if isinstance(c, Const) else None
            return _times(pieces_of(a), 1.0 if number is None else number, c if number is None else None)
        case Apply(op="matmul", args=(a, Apply(op="transpose", args=(b,)))) if a is b:
            return [Piece(_transposed(matrix_map(a)), 1.0)]
        case Apply(op="matmul", args=(Apply(op="transpose", args=(a,)), b)) if a is b:
            return [Piece(matrix_map(a), 1.0)]
        case _:
            return None


def _times(pieces: list[Piece] | None, number: float, weight: ParamExpr | None) -> list[Piece] | None:
    if pieces is None:
        return None
    return [p.after(Identity(p.k.shape_in), number, weight) for p in pieces]


def matrix_map(a: ParamExpr) -> LinearMap:
    """A matrix (m, n) of parameters as a map of vectors: a convolution where it is one."""
    if isinstance(a, Apply) and a.op == "map_matrix":
        inner: LinearMap = a.attrs["map"]
        return inner
    if isinstance(a, Apply) and a.op == "transpose" and len(a.shape) == 2:
        return _transposed(matrix_map(a.args[0]))
    return LeftMul(a, (a.shape[1],))


def _transposed(m: LinearMap) -> LinearMap:
    return m.of if isinstance(m, Adjoint) else Adjoint(m)


def _diagonal(p: Const) -> Array | None:
    value = p.value
    d = np.asarray(value.diagonal())
    count = int(value.count_nonzero()) if p.sparse else int(np.count_nonzero(value))  # type: ignore[union-attr]
    return d if p.shape[0] == p.shape[1] and count == int(np.count_nonzero(d)) else None


def of_diagonal(d: Array, n: int) -> Piece:
    """diag(d) as a piece."""
    if d.size and (d == d[0]).all():
        return Piece(Identity((n,)), float(d[0]))
    return Piece(Identity((n,)), 1.0, const(d))


def product(p: ParamExpr, b: Tensor, lookup: Lookup) -> Tensor | None:
    """P b for b (1|B, n) where P has pieces with a convolution, so that P is never formed; else None."""
    pieces = pieces_of(p)
    if pieces is None or not any(has_conv(piece.k) for piece in pieces):
        return None
    shape = Factored(p.shape[0], tuple(pieces))
    return shape.bind([lookup(e) for e in shape.exprs]).multiply(b)
