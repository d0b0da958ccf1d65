"""Blocks: the proximal part of a program as proxes on disjoint sets of coordinates.

A block carries one atom on a scaled selection s∘u[index] + b, or a scalar function followed by an interval on
the same coordinates (prox of the sum is the composition, interval last: Yu 2013).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.atoms import Atom, Trait, atom
from opteq_cvx.atoms.on_plane import PIECEWISE, PREFIX, OnPlane
from opteq_cvx.ir.frozen import EMPTY, Frozen, FrozenDict, IntArray, freeze_index
from opteq_cvx.ir.layout import Layout, as_selection
from opteq_cvx.ir.param import ParamExpr, const, is_zero
from opteq_cvx.ir.program import Origin, Term
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.groups import Rows
from opteq_cvx.splitting.scaled import precomposed

AWAY = 1e2  # a constant within so many units of rounding of a set lies in it

PLANES = ("simplex", "box_plane")
"""Sets on which a piecewise linear function keeps a prox: `OnPlane`."""

EVERYWHERE = frozenset({Trait.HOMOGENEOUS, Trait.SMOOTH, Trait.QUADRATIC})
"""Traits of functions that act entry by entry and have no domain: they are finite everywhere."""

BOUNDS = ("lower", "upper")
"""Data of atoms that may be infinite."""


@dataclass(frozen=True, slots=True, eq=False)
class Block(Frozen):
    """w · f(s∘u[index] + b; data), then, where set, an interval on u[index] itself; `term` is what it was made of."""

    f: Atom
    index: IntArray
    origin: Origin
    weight: ParamExpr | None = None
    scale: ParamExpr | None = None
    offset: ParamExpr | None = None
    data: FrozenDict = EMPTY
    interval: "Block | None" = None
    term: Term | None = None
    plane: Term | None = None  # of `OnPlane`, the set beside `term`

    @property
    def exprs(self) -> tuple[ParamExpr, ...]:
        """What of theta belongs to this block, in order."""
        own = [e for e in (self.weight, self.scale, self.offset) if e is not None]
        inner = self.interval.exprs if self.interval is not None else ()
        return (*own, *self.data.values(), *inner)

    @property
    def unlimited(self) -> tuple[bool, ...]:
        """Which of `exprs` are bounds, that may be infinite."""
        own = sum(e is not None for e in (self.weight, self.scale, self.offset))
        inner = self.interval.unlimited if self.interval is not None else ()
        return (*(False for _ in range(own)), *(key in BOUNDS for key in self.data), *inner)

    def bind(self, step: Tensor, theta: Sequence[Tensor], *, inplace: bool = False) -> Callable[[Tensor], Tensor]:
        """The prox as a function of v (B, *event); with `inplace` it may overwrite v.

        `step` is (1|B,) for one step a sample, or (1|B, n) for one a coordinate, the same for coordinates that the prox
        couples; `theta` the values of `exprs`.
        """
        t, s, b, data, values = self.parts(step, theta)
        f = self.f
        then = self.interval.bind(step, values, inplace=inplace) if self.interval is not None else None
        if inplace and s is None and b is None:
            first = partial(f.prox_inplace, step=t, data=data)
            return first if then is None else lambda v: then(first(v))
        if s is not None:
            scaled = precomposed(f, t, s, b, data, self.index.shape)
            return scaled if then is None else lambda v: then(scaled(v))

        def prox(v: Tensor) -> Tensor:
            out = f.prox(v if b is None else v + b, t, data)
            out = out if b is None else out - b
            return out if then is None else then(out)

        return prox

    def slope(self, v: Tensor, step: Tensor, theta: Sequence[Tensor]) -> Tensor | None:
        """The derivative of the prox at v (B, *event), entry by entry, where the atom knows it and acts alone."""
        if self.scale is not None or self.offset is not None or self.interval is not None:
            return None
        t, _, _, data, _ = self.parts(step, theta)
        return self.f.slope(v, t, data)

    def parts(
        self, step: Tensor, theta: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor | None, Tensor | None, dict[str, Tensor], list[Tensor]]:
        """The step times the weight, s, b and the data, as they broadcast with v, and the interval's own values."""
        values, ndim = list(theta), self.index.ndim + 1
        t = self._step(step)
        t = t if self.weight is None else t * _align(values.pop(0), ndim)
        s = _align(values.pop(0), ndim) if self.scale is not None else None
        b = _align(values.pop(0), ndim) if self.offset is not None else None
        return t, s, b, {key: _align(values.pop(0), ndim) for key in self.data}, values

    def value(self, y: Tensor, theta: Sequence[Tensor]) -> Tensor:
        """⟨w, f(s∘y + b)⟩ at y (B, rows), (B,): the block's function, without its interval."""
        value = self.entries(y.reshape(y.shape[0], *self.index.shape), theta)
        return value.flatten(1).sum(1) if value.ndim > 1 else value

    def entries(self, y: Tensor, theta: Sequence[Tensor]) -> Tensor:
        """w · f(s∘y + b) at y (B, *event), not yet summed."""
        weight, s, b, data, _ = self.parts(y.new_ones(1), theta)
        x = y if s is None else s * y
        value = self.f.value(x if b is None else x + b, data)
        return value if self.weight is None else weight * value

    def shares(self, w: Tensor, y: Tensor, theta: Sequence[Tensor]) -> list[tuple[Term, Tensor, Tensor]]:
        """(term, point, multiplier) of the function and of the interval, for y (B, rows) ∈ ∂(f + ι)(w) of u[index].

        What f has to give at a bound is its own slope there; the interval takes the rest, where it has the sign of
        its normal cone.
        """
        event, found = (w.shape[0], *self.index.shape), list[tuple[Term, Tensor, Tensor]]()
        if self.plane is not None and self.term is not None:
            return self._halves(self.plane, self.term, w.reshape(event), y.reshape(event), theta)
        if self.interval is not None and self.interval.term is not None:
            inner = self.interval.exprs
            data = list(theta)[len(theta) - len(inner) :]
            slope = torch.func.vjp(lambda x: self.value(x, theta).sum(), w)[1](w.new_ones(()))[0]
            rest = (y - slope).reshape(event)
            onto = self.interval.bind(w.new_ones(1), data)
            here = w.reshape(event)
            normal = onto(here + rest) - here  # what is not normal moves the point
            share = torch.where((normal == 0) & torch.isfinite(rest), rest, torch.zeros_like(rest))
            found.append((self.interval.term, here, share))
            y = (y.reshape(event) - share).reshape(y.shape)
        if self.term is not None:
            values, ndim = list(theta)[self.weight is not None :], self.index.ndim + 1
            s = _align(values.pop(0), ndim) if self.scale is not None else None
            b = _align(values.pop(0), ndim) if self.offset is not None else None
            x, g = w.reshape(event), y.reshape(event)
            x, g = (x, g) if s is None else (s * x, torch.where(s == 0, 0.0, g / s))
            found.append((self.term, x if b is None else x + b, g))
        return found

    def _halves(
        self, plane: Term, term: Term, x: Tensor, y: Tensor, theta: Sequence[Tensor]
    ) -> list[tuple[Term, Tensor, Tensor]]:
        """y ∈ ∂(wf)(x + o) + τa + N(x) in its parts: the set has τa and, at a bound, what is not f's slope there."""
        f = self.f
        assert isinstance(f, OnPlane)
        data = {key: _align(value, self.index.ndim + 1) for key, value in zip(self.data, theta, strict=True)}
        normal = f.level(x + y, x.new_ones((1,) * x.ndim), data) * data["normal"]
        slope = torch.func.vjp(lambda x: f.own(x, data), x)[1](torch.ones_like(x))[0]
        rest = y - normal - slope
        outward = ((x <= data["lower"]) & (rest < 0)) | ((x >= data["upper"]) & (rest > 0))
        share = normal + torch.where(outward, rest, 0.0)
        return [(plane, x, share), (term, x + data["offset"] if "offset" in data else x, y - share)]

    def _step(self, step: Tensor) -> Tensor:
        ones = (1,) * self.index.ndim
        if step.ndim == 1:
            return step.reshape(-1, *ones)
        one = Rows.of(self.f, self.index).first  # rows that the prox couples share their step
        flat = torch.as_tensor(one.reshape(-1).copy(), device=step.device)
        return step.index_select(1, flat).reshape(step.shape[0], *one.shape)

    def negative_weight(self, theta: Sequence[Tensor]) -> Tensor | None:
        """(1|B,) whether some weight is negative, None where there is no weight to check."""
        if self.plane is not None and "weight" in self.data:
            return _any(theta[list(self.data).index("weight")] < 0)
        if self.weight is None:
            return None
        return _any(theta[0] < 0)

    def empty(self, theta: Sequence[Tensor], like: Tensor | None = None) -> Tensor | None:
        """(1|B,) whether the block's set is empty at these values (a box with lower > upper).

        `like` is on the device of the flags, where there is no theta to tell it.
        """
        if self.interval is not None:
            return self._empty_beside(self.interval, theta, theta[0] if theta else like)
        values = list(theta)[len(theta) - len(self.data) :]
        flag = self.f.empty(dict(zip(self.data, values, strict=True)))
        found = None if flag is None else _any(flag)
        if self.scale is None or Trait.SET not in self.f.traits:
            return found
        constant = self._constant_outside(theta)
        return constant if found is None else found | constant

    def _empty_beside(self, interval: "Block", theta: Sequence[Tensor], like: Tensor | None) -> Tensor | None:
        """(1|B,) whether the interval is empty or misses the domain of f (log x beside x ≤ 0).

        From any point of a domain the point of the interval next to it lies in the domain, too, if any does.
        """
        count = len(theta) - len(interval.exprs)
        found = interval.empty(theta[count:])
        if self.f.traits & EVERYWHERE or like is None:
            return found
        own, data = replace(self, weight=None, interval=None), list(theta)[:count]
        weight = data.pop(0) if self.weight is not None else None
        step = torch.ones(1, dtype=theta[0].dtype if theta else torch.float64, device=like.device)
        rows = next((t.shape[0] for t in theta[:count] if t.shape[0] != 1), 1)
        inside = own.bind(step, data)(step.new_zeros(rows, *self.index.shape))
        near = interval.bind(step, theta[count:])(inside)
        missed = (own.entries(near, data) == torch.inf) & (near != inside)
        if weight is not None:
            missed = missed & (_align(weight, missed.ndim) != 0)
        bad = _any(missed)
        return bad if found is None else found | bad

    def _constant_outside(self, theta: Sequence[Tensor]) -> Tensor:
        """(1|B,) whether some entry with scale 0 is a constant outside of the set."""
        values, ndim = list(theta)[self.weight is not None :], self.index.ndim + 1
        s = _align(values.pop(0), ndim)
        b = _align(values.pop(0), ndim) if self.offset is not None else torch.zeros_like(s)
        data = {key: _align(values.pop(0), ndim) for key in self.data}
        point = (b + s.new_zeros(1, *self.index.shape)).detach()
        inside = self.f.prox(point, point.new_ones((1,) * point.ndim), data)
        away = (inside - point).abs() > AWAY * torch.finfo(point.dtype).eps * (1 + point.abs())
        return _any((s == 0) & away)


def _any(flag: Tensor) -> Tensor:
    """(1|B,) whether any entry of a sample is True; right for empty batches too."""
    return flag.flatten(1).any(dim=1) if flag.ndim > 1 else flag


def _align(value: Tensor, ndim: int) -> Tensor:
    """Insert singleton axes after the batch axis, so that (1|B, *s) broadcasts against (B, *event)."""
    missing = ndim - value.ndim
    return value.reshape(value.shape[0], *(1,) * missing, *value.shape[1:]) if missing > 0 else value


@dataclass(frozen=True, slots=True)
class Overlap:
    """Why the terms do not split into disjoint blocks."""

    reason: str


def blocks_of(terms: Sequence[Term], layout: Layout) -> tuple[Block, ...] | Overlap:
    """Disjoint blocks of the proximal terms, merging a scalar function with an interval; or why it cannot be done."""
    blocks: list[Block] = []
    for term in terms:
        selection = as_selection(term.arg, layout)
        f = atom(term.atom).from_static(term.static)
        if selection is None:
            return Overlap(f"{term.origin} acts on a combination of coordinates")
        data = FrozenDict(term.data)
        scale, offset, weight = selection.scale, _nonzero(selection.offset), term.weight
        if Trait.SEPARABLE not in f.traits and scale is not None and scale.shape != ():
            return Overlap(f"{term.origin} scales the entries of a non-separable function differently")
        block = Block(f, freeze_index(selection.index), term.origin, weight, scale, offset, data, term=term)
        merged = _merge(blocks, block)
        if isinstance(merged, Overlap):
            return merged
        blocks = merged
    return tuple(blocks)


def _nonzero(offset: ParamExpr) -> ParamExpr | None:
    return None if is_zero(offset) else offset


def _merge(blocks: list[Block], new: Block) -> list[Block] | Overlap:
    touched = [b for b in blocks if np.intersect1d(b.index, new.index).size]
    if not touched:
        return [*blocks, new]
    if len(touched) > 1:
        return Overlap(f"{new.origin} overlaps several terms")
    (old,) = touched
    rest = [b for b in blocks if b is not old]
    for outer, inner in ((new, old), (old, new)):
        plain = outer.scale is None and outer.offset is None and outer.interval is None
        fits = (
            Trait.INTERVAL in outer.f.traits
            and plain
            and Trait.SEPARABLE in inner.f.traits
            and Trait.INTERVAL not in inner.f.traits
            and inner.interval is None
        )
        if fits and np.array_equal(outer.index, inner.index):
            return [*rest, replace(inner, interval=outer)]
        if plain and outer.f.name in PLANES and np.array_equal(outer.index, inner.index):
            joint = _on_plane(inner, outer)
            if joint is not None:
                return [*rest, joint]
    return Overlap(f"{new.origin} and {old.origin} act on the same coordinates")


def _on_plane(inner: Block, outer: Block) -> Block | None:
    """A piecewise linear function beside a simplex, or a box with a plane, on the same coordinates."""
    if (
        inner.f.name not in PIECEWISE
        or inner.scale is not None
        or inner.interval is not None
        or outer.weight is not None
    ):
        return None
    shape, data = inner.index.shape, dict(outer.data)
    if outer.f.name == "simplex":
        data |= {
            "lower": const(np.zeros(shape)),
            "upper": const(np.full(shape, np.inf)),
            "normal": const(np.ones(shape)),
        }
    data |= {k: e for k, e in (("weight", inner.weight), ("offset", inner.offset)) if e is not None}
    data |= {PREFIX + key: e for key, e in inner.data.items()}
    f = OnPlane(inner.f, getattr(outer.f, "axes", (-1,)), getattr(outer.f, "below", False))
    origin = Origin(f"{inner.origin.where}, {outer.origin.where}", f"{inner.origin.text}; {outer.origin.text}")
    return Block(f, inner.index, origin, data=FrozenDict(data), term=inner.term, plane=outer.term)


def evaluate(blocks: Sequence[Block], env: Environment) -> tuple[Tensor, ...]:
    """The theta of all blocks, in order."""
    return tuple(env(e) for block in blocks for e in block.exprs)


def bind(
    blocks: Sequence[Block],
    n: int,
    step: Tensor,
    theta: Sequence[Tensor],
    order: IntArray | None,
    *,
    inplace: bool = False,
) -> Callable[[Tensor], Tensor]:
    """The joint prox as a function of v (B, n): each block on its coordinates, identity elsewhere.

    `order` permutes the concatenation [blocks…, rest] back to u's order; None when the blocks cover u in order.
    With `inplace`, v may be overwritten.
    """
    if not blocks:
        return lambda v: v
    values, bound = list(theta), []
    for block in blocks:
        count = len(block.exprs)
        bound.append(block.bind(step, values[:count], inplace=inplace and order is None and len(blocks) == 1))
        values = values[count:]
    if order is None and len(blocks) == 1:
        (only,), event = bound, blocks[0].index.shape
        if len(event) == 1:
            return only
        return lambda v: only(v.reshape(v.shape[0], *event)).reshape(v.shape)
    sizes, events = [b.index.size for b in blocks], [b.index.shape for b in blocks]
    if order is None:

        def in_order(v: Tensor) -> Tensor:
            parts = zip(bound, v.split(sizes, dim=1), events, strict=True)
            return torch.cat([f(x.reshape(x.shape[0], *e)).reshape(x.shape) for f, x, e in parts], dim=1)

        return in_order
    device = step.device
    flats = [torch.as_tensor(b.index.reshape(-1).copy(), device=device) for b in blocks]
    rest = torch.as_tensor(
        np.setdiff1d(np.arange(n), np.concatenate([b.index.reshape(-1) for b in blocks])), device=device
    )
    back = torch.as_tensor(order.copy(), device=device)

    def prox(v: Tensor) -> Tensor:
        rows, pieces = v.shape[0], []
        for block, one, flat in zip(blocks, bound, flats, strict=True):
            x = v.index_select(1, flat)
            pieces.append(one(x.reshape(rows, *block.index.shape)).reshape(x.shape))
        pieces.append(v.index_select(1, rest))
        return torch.cat(pieces, dim=1).index_select(1, back)

    return prox


def inverse_order(blocks: Sequence[Block], n: int) -> IntArray | None:
    """The permutation that `bind` needs, or None when the blocks, one after the other, are all of u in order."""
    taken = [b.index.reshape(-1) for b in blocks]
    used = np.concatenate(taken) if taken else np.zeros(0, dtype=np.int64)
    if np.array_equal(used, np.arange(n)):
        return None
    rest = np.setdiff1d(np.arange(n), used)
    return freeze_index(np.argsort(np.concatenate([used, rest]), kind="stable"))


def stacked(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """The blocks on rows of their own, one after the other."""
    out: list[Block] = []
    start = 0
    for block in blocks:
        stop = start + block.index.size
        index = freeze_index(np.arange(start, stop).reshape(block.index.shape))
        interval = None if block.interval is None else replace(block.interval, index=index)
        out.append(replace(block, index=index, interval=interval))
        start = stop
    return tuple(out)
