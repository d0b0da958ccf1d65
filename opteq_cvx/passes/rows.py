"""Affine arguments of one variable as sparse rows over its coordinates, to see sums and differences in them."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import Array, IntArray, Shape, size
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.linmap import (
    Adjoint,
    Broadcast,
    Compose,
    Diagonal,
    Gather,
    Identity,
    LeftMul,
    LinearMap,
    Permute,
    Reshape,
    RightMul,
    Sparse,
    Sum,
    SumMap,
    Zero,
    gather,
)
from opteq_cvx.ir.param import Const, ParamExpr, const, multiply
from opteq_cvx.ir.program import Affine

LIMIT = 1_000_000
"""Entries of a dense factor above which a map is not looked into."""


def affine_of(name: str, index: IntArray, layout: Layout) -> Affine:
    """The entries of a variable at flat positions `index` of the layout, in the shape of `index`."""
    shape = layout.shapes[layout.names.index(name)]
    picked = gather(np.asarray(index - layout.start(name)), shape)
    return Affine(((name, picked),), act.zeros(index.shape))


def pick(p: ParamExpr, place: IntArray) -> ParamExpr:
    """Entries of a ParamExpr at flat positions, in the shape of `place`."""
    whole = p.shape == place.shape and np.array_equal(place.reshape(-1), np.arange(place.size))
    return p if whole else act.apply(gather(place, p.shape), p)


def matrix(m: LinearMap) -> sp.csr_array | None:
    """A constant map as a sparse matrix between C-ordered flat vectors; None where it has parameters or is huge."""
    n, k = size(m.shape_in), size(m.shape_out)
    match m:
        case Identity() | Zero():
            return sp.csr_array(sp.eye_array(n)) if isinstance(m, Identity) else sp.csr_array((k, n))
        case Diagonal(d=Const() as d):
            return sp.csr_array(sp.diags_array(np.broadcast_to(d.dense(), m.shape_in).reshape(-1).copy()))
        case Sparse(matrix=inner):
            return sp.csr_array(inner, copy=True)  # rows are normalized in place
        case Compose(maps=maps):
            return _fold(maps, lambda a, b: a @ b)
        case SumMap(maps=maps):
            return _fold(maps, lambda a, b: a + b)
        case Adjoint(of=of):
            inner = matrix(of)
            return None if inner is None else sp.csr_array(inner.T)
        case LeftMul(a=Const()) if len(m.shape_in) == 1 and k * n <= LIMIT:
            return sp.csr_array(m.a.value)  # type: ignore[union-attr]
        case RightMul(b=Const()) if k * n <= LIMIT:
            return sp.csr_array(sp.kron(sp.eye_array(n // m.shape_in[-1]), sp.csr_array(m.b.value).T))  # type: ignore[union-attr]
        case Gather() | Reshape() | Permute() | Broadcast():
            return _placed(_positions(m), n)
        case Sum():
            rows = np.zeros(m.shape_in, dtype=np.int64) + _sum_rows(m)
            ones = (np.ones(n), (rows.reshape(-1), np.arange(n)))
            return sp.csr_array(ones, shape=(k, n))
        case _:
            return None


def _fold(maps: tuple[LinearMap, ...], join: object) -> sp.csr_array | None:
    found = [matrix(part) for part in maps]
    total = found[0]
    for part in found[1:]:
        if total is None or part is None:
            return None
        total = sp.csr_array(join(total, part))  # type: ignore[operator]
    return total


def _positions(m: Gather | Reshape | Permute | Broadcast) -> IntArray:
    grid = np.arange(size(m.shape_in)).reshape(m.shape_in)
    match m:
        case Gather(index=index):
            return index
        case Reshape(shape_out=shape, order=order):
            return grid.reshape(shape, order="F" if order == "F" else "C")
        case Permute(axes=axes):
            return grid.transpose(axes)
        case _:
            return np.broadcast_to(grid, m.shape_out)


def _placed(positions: IntArray, n: int) -> sp.csr_array:
    flat = positions.reshape(-1)
    rows = np.flatnonzero(flat >= 0)
    return sp.csr_array((np.ones(rows.size), (rows, flat[rows])), shape=(flat.size, n))


def _sum_rows(m: Sum) -> IntArray:
    kept = tuple(1 if i in m.axes else s for i, s in enumerate(m.shape_in))
    return np.arange(size(kept)).reshape(kept)


@dataclass(frozen=True, slots=True)
class Sums:
    """Disjoint weighted sums along `axes` of distinct coordinates of one variable.

    Attributes:
        name: the variable.
        index: flat positions in the layout, in the event's shape.
        axes: the summed axes, negative.
        weight: the coefficients: an array that broadcasts to the event, or a ParamExpr of its shape.
    """

    name: str
    index: IntArray
    axes: tuple[int, ...]
    weight: Array | ParamExpr

    @property
    def reduced(self) -> Shape:
        """The event's shape with length 1 on the summed axes."""
        ndim = len(self.index.shape)
        return tuple(1 if i - ndim in self.axes else n for i, n in enumerate(self.index.shape))

    @property
    def uniform(self) -> float | None:
        """The coefficient, where it is the same number everywhere."""
        if not isinstance(self.weight, np.ndarray) or not self.weight.size:
            return None
        flat = self.weight.reshape(-1)
        return float(flat[0]) if (flat == flat[0]).all() else None

    @property
    def coefficients(self) -> ParamExpr:
        """The coefficients in the event's shape."""
        given = const(self.weight) if isinstance(self.weight, np.ndarray) else self.weight
        return act.spread(given, self.index.shape)


def sums(arg: Affine, layout: Layout) -> Sums | None:
    """Read the linear part of an argument as disjoint sums of at least two entries each; None where it is not."""
    if len(arg.parts) != 1:
        return None
    name, linear = arg.parts[0]
    chain = linear.maps if isinstance(linear, Compose) else (linear,)
    varying = [i for i, part in enumerate(chain) if isinstance(part, Diagonal) and not isinstance(part.d, Const)]
    if len(varying) > 1:
        return None
    cut = varying[0] if varying else len(chain)
    found = _outer(chain[:cut], chain[cut + 1 :], layout.shapes[layout.names.index(name)])
    if found is None:
        return None
    place, weight, axes, positions = found
    factor: Array | ParamExpr = weight
    if varying:
        part = chain[cut]
        assert isinstance(part, Diagonal)
        own = pick(act.spread(part.d, part.shape_in), positions)
        factor = multiply(const(np.broadcast_to(weight, positions.shape)), own)
    return Sums(name, np.asarray(place + layout.start(name)), axes, factor)


def _outer(
    outer: tuple[LinearMap, ...], inner: tuple[LinearMap, ...], shape: Shape
) -> tuple[IntArray, Array, tuple[int, ...], IntArray] | None:
    """(positions in the variable, coefficients, summed axes, positions before `outer`), all in the event's shape."""
    chosen = _fold(inner, lambda a, b: a @ b) if inner else sp.csr_array(sp.eye_array(size(shape)))
    selected = _single(chosen)
    if selected is None:
        return None
    entry, scale = selected
    if outer and isinstance(outer[-1], Sum) and all(_scalar(part) is not None for part in outer[:-1]):
        total = outer[-1]  # the plain case keeps the event's shape
        c = float(np.prod([_scalar(part) or 0.0 for part in outer[:-1]], initial=1.0))
        positions = np.arange(size(total.shape_in)).reshape(total.shape_in)
        axes = tuple(a - len(total.shape_in) for a in total.axes)
    else:
        rows = _fold(outer, lambda a, b: a @ b) if outer else None
        if rows is None or not rows.nnz:
            return None
        rows.sum_duplicates()
        rows.eliminate_zeros()
        counts = np.diff(rows.indptr)
        if (counts != counts[0]).any() or counts[0] == 0:
            return None
        event = (int(counts[0]),) if rows.shape[0] == 1 else (rows.shape[0], int(counts[0]))
        positions, axes, c = rows.indices.reshape(event).astype(np.int64), (-1,), rows.data.reshape(event)
    place = entry[positions]
    if not axes or size(tuple(positions.shape[a] for a in axes)) < 2 or np.unique(place).size != place.size:
        return None
    return place, np.asarray(c * scale[positions]), axes, positions


def _scalar(m: LinearMap) -> float | None:
    """The factor of a map that only scales (or keeps) what it gets, in C order."""
    match m:
        case Diagonal(d=Const() as d) if d.shape == ():
            return float(d.dense())
        case Identity() | Reshape(order="C"):
            return 1.0
        case _:
            return None


def _single(chosen: sp.csr_array | None) -> tuple[IntArray, Array] | None:
    """(column, value) of each row of a matrix with one nonzero a row; None otherwise."""
    if chosen is None:
        return None
    chosen.sum_duplicates()
    if (np.diff(chosen.indptr) != 1).any():
        return None
    return chosen.indices.astype(np.int64), chosen.data
