"""Invariants: what must hold of each IR object by itself; checked where objects come from outside."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from opteq_cvx.ir.frozen import Shape
from opteq_cvx.ir.linmap import (
    Broadcast,
    Compose,
    Diagonal,
    Gather,
    LeftMul,
    Permute,
    Reshape,
    Sparse,
    Sum,
    SumMap,
)
from opteq_cvx.ir.param import Const, Stage
from opteq_cvx.ir.program import Affine, Program

MAX_ENTRIES = 2**36
"""Entries of one array that a program may ask for; half a terabyte in float64."""


class BrokenInvariantError(ValueError):
    """An IR object that means nothing."""


def check(node: Any) -> None:
    """Check shapes, indices and names of one object whose children are sound.

    Raises:
        BrokenInvariantError: an invariant does not hold.
    """
    for name in ("shape", "shape_in", "shape_out"):
        if name in dir(type(node)):
            _check_shape(type(node).__name__, name, getattr(node, name))
    rule = RULES.get(type(node))
    if rule is not None and not rule(node):
        raise BrokenInvariantError(f"a {type(node).__name__} whose parts do not fit")


def _check_shape(kind: str, name: str, shape: Shape) -> None:
    total = 1
    for n in shape:
        if n < 0:
            raise BrokenInvariantError(f"{kind}.{name} = {shape}")
        total *= max(n, 1)
    if total > MAX_ENTRIES:
        raise BrokenInvariantError(f"{kind}.{name} = {shape} has more than {MAX_ENTRIES} entries")


def _entries(shape: Shape) -> int:
    """Number of entries in exact integers."""
    total = 1
    for n in shape:
        total *= n
    return total


def _broadcasts(small: Shape, large: Shape) -> bool:
    pairs = zip(reversed(small), reversed(large), strict=False)
    return len(small) <= len(large) and all(a in (1, b) for a, b in pairs)


def _const(c: Const) -> bool:
    return sp.issparse(c.value) or c.value.dtype == np.float64


def _left(m: LeftMul) -> bool:
    inner = m.shape_in[0] if len(m.shape_in) == 1 else m.shape_in[-2]
    return len(m.a.shape) == 2 and m.a.shape[1] == inner


def _gather(m: Gather) -> bool:
    size = _entries(m.shape_in)
    return m.index.size == 0 or bool(m.index.min() >= -1 and m.index.max() < size)


def _sparse(m: Sparse) -> bool:
    return bool(m.matrix.shape == (_entries(m.shape_out), _entries(m.shape_in)))


def _compose(m: Compose) -> bool:
    chain = zip(m.maps[:-1], m.maps[1:], strict=True)
    return bool(m.maps) and all(outer.shape_in == inner.shape_out for outer, inner in chain)


def _sum_map(m: SumMap) -> bool:
    return bool(m.maps) and all((p.shape_in, p.shape_out) == (m.shape_in, m.shape_out) for p in m.maps)


def _affine(a: Affine) -> bool:
    return all(m.shape_out == a.offset.shape for _, m in a.parts)


def _program(p: Program) -> bool:
    names, shapes = [v.name for v in p.variables], {v.name: v.shape for v in p.variables}
    leaves = [leaf.name for leaf in p.parameters]
    affines = [t.arg for t in p.terms] + [o.value for o in p.outputs]
    affines += [o.imaginary for o in p.outputs if o.imaginary is not None] + [t.value for t in p.ties]
    tied = {leaf.name: leaf.shape for leaf in p.parameters if leaf.stage is Stage.TIED}
    return (
        len(set(names)) == len(names)
        and len(set(leaves)) == len(leaves)
        and p.sign in (1, -1)
        and all(shapes.get(name) == m.shape_in for a in affines for name, m in a.parts)
        and all(0 <= i < len(p.terms) for c in p.constraints for i in c.terms)
        and sorted(t.parameter for t in p.ties) == sorted(tied)
        and all(tied[t.parameter] == t.value.shape for t in p.ties)
    )


RULES: dict[type, Callable[[Any], bool]] = {
    Affine: _affine,
    Broadcast: lambda m: _broadcasts(m.shape_in, m.shape_out),
    Compose: _compose,
    Const: _const,
    Diagonal: lambda m: _broadcasts(m.d.shape, m.shape_in),
    Gather: _gather,
    LeftMul: _left,
    Permute: lambda m: sorted(m.axes) == list(range(len(m.shape_in))),
    Program: _program,
    Reshape: lambda m: _entries(m.shape_in) == _entries(m.shape_out) and m.order in ("C", "F"),
    Sparse: _sparse,
    Sum: lambda m: len(set(m.axes)) == len(m.axes) and all(0 <= a < len(m.shape_in) for a in m.axes),
    SumMap: _sum_map,
}
