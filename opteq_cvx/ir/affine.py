"""Affine expressions under linear maps: sums, images, joins along a new axis."""

from collections.abc import Sequence

import numpy as np

from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import IntArray, Shape, size
from opteq_cvx.ir.linmap import (
    Broadcast,
    Diagonal,
    Gather,
    Identity,
    LinearMap,
    Zero,
    compose,
    diagonal,
    gather,
    negate,
    sum_maps,
)
from opteq_cvx.ir.param import ParamExpr, const, is_zero, neg
from opteq_cvx.ir.param import add as add_params
from opteq_cvx.ir.program import Affine


def of_param(p: ParamExpr) -> Affine:
    """The affine expression that does not depend on any variable."""
    return Affine((), p)


def of_variable(name: str, shape: Shape) -> Affine:
    """A variable itself."""
    return Affine(((name, Identity(shape)),), act.zeros(shape))


def image(m: LinearMap, x: Affine) -> Affine:
    """K x, map by map."""
    if isinstance(m, Identity):
        return x
    parts = ((name, compose(m, inner)) for name, inner in x.parts)
    return Affine(tuple(p for p in parts if not isinstance(p[1], Zero)), act.apply(m, x.offset))


def add(*terms: Affine) -> Affine:
    """The sum of affine expressions of one shape."""
    parts: dict[str, LinearMap] = {}
    for x in terms:
        for name, m in x.parts:
            parts[name] = _plus(parts[name], m) if name in parts else m
    return Affine(tuple(parts.items()), act.spread(add_params(*(x.offset for x in terms)), terms[0].shape))


def _plus(a: LinearMap, b: LinearMap) -> LinearMap:
    """a + b; gathers to different places become one, so that a stack of entries stays one gather; scalings add."""
    if isinstance(a, Gather) and isinstance(b, Gather) and not ((a.index >= 0) & (b.index >= 0)).any():
        return gather(np.where(a.index >= 0, a.index, b.index), a.shape_in)
    if isinstance(a, Identity | Diagonal) and isinstance(b, Identity | Diagonal):
        factor = add_params(*(m.d if isinstance(m, Diagonal) else const(1.0) for m in (a, b)))
        if not is_zero(factor):
            return diagonal(factor, a.shape_in)
    return sum_maps(a, b)


def negative(x: Affine) -> Affine:
    """−x."""
    return Affine(tuple((name, negate(m)) for name, m in x.parts), neg(x.offset))


def broadcast(x: Affine, shape: Shape) -> Affine:
    """x broadcast to `shape` by NumPy's rules."""
    return x if x.shape == shape else image(Broadcast(x.shape, shape), x)


def place(x: Affine, positions: IntArray, shape: Shape) -> Affine:
    """An array of `shape` that is zero but for the entries of x at flat `positions` (C order)."""
    index = np.full(size(shape), -1, dtype=np.int64)
    index[positions.reshape(-1)] = np.arange(size(x.shape))
    return image(gather(index.reshape(shape), x.shape), x)


def join(terms: Sequence[Affine]) -> Affine:
    """The concatenation of the terms along the last axis; their other axes are equal."""
    lengths = [x.shape[-1] for x in terms]
    shape = (*terms[0].shape[:-1], sum(lengths))
    index = np.arange(size(shape)).reshape(shape)
    starts = np.cumsum([0, *lengths])
    placed = [place(x, index[..., a:b], shape) for x, a, b in zip(terms, starts, starts[1:], strict=False)]
    return add(*placed)


def stack(terms: Sequence[Affine]) -> Affine:
    """Terms of one shape stacked along a new last axis."""
    shape = (*terms[0].shape, len(terms))
    index = np.arange(size(shape)).reshape(shape)
    return add(*(place(x, index[..., i], shape) for i, x in enumerate(terms)))
