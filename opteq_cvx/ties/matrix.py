"""Linear maps, couplings and quadratics as matrices of parameters, with the structure that bounds are read from."""

from collections.abc import Sequence

import numpy as np

from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import Array, FrozenDict, size
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.linmap import (
    Compose,
    Diagonal,
    Identity,
    LeftMul,
    LinearMap,
    SumMap,
    Zero,
    coefficients,
)
from opteq_cvx.ir.param import Apply, Const, ParamExpr, add, const, multiply
from opteq_cvx.ir.program import Term
from opteq_cvx.ties.tilt import Edge


def matrix(m: LinearMap) -> ParamExpr:
    """The matrix (size of output, size of input) of a linear map."""
    match m:
        case Identity(shape_in=shape):
            return const(np.eye(size(shape)))
        case Zero(shape_in=a, shape_out=b):
            return act.zeros((size(b), size(a)))
        case LeftMul(a=a, shape_in=shape) if len(shape) == 1:
            return a
        case Diagonal(d=d) if size(d.shape) == 1:
            return multiply(act.reshape(d, ()), const(np.eye(size(m.shape_in))))
        case Compose(maps=maps) if all(_simple(p) for p in maps):
            return _product(maps)
        case SumMap(maps=maps):
            return add(*(matrix(part) for part in maps))
        case _:
            shape = size(m.shape_out), size(m.shape_in)
            return Apply("map_matrix", coefficients(m), shape, FrozenDict(map=m))


def _simple(m: LinearMap) -> bool:
    vector = len(m.shape_in) <= 1 and len(m.shape_out) <= 1
    return vector and isinstance(m, Identity | LeftMul | Diagonal | SumMap)


def _product(maps: Sequence[LinearMap]) -> ParamExpr:
    """The product of matrices, numbers in front."""
    scale: ParamExpr = const(1.0)
    total: ParamExpr | None = None
    for part in maps:
        if isinstance(part, Diagonal) and size(part.d.shape) == 1:
            scale = multiply(scale, act.reshape(part.d, ()))
            continue
        one = _diagonal(part) if isinstance(part, Diagonal) else matrix(part)
        total = one if total is None else act.matmul(total, one)
    if total is None:
        return multiply(scale, const(np.eye(size(maps[0].shape_out))))
    return multiply(scale, total)


def _diagonal(part: Diagonal) -> ParamExpr:
    d = act.spread(part.d, part.shape_in)
    if isinstance(d, Const):
        return const(np.diag(d.dense()))
    n = part.shape_in[0]
    return Apply("diag_vec", (d,), (n, n))


def assemble(grid: Sequence[Sequence[ParamExpr]]) -> ParamExpr:
    """A square matrix from its blocks; a single block stays as it is."""
    if len(grid) == 1 and len(grid[0]) == 1:
        return grid[0][0]
    if all(isinstance(b, Const) for row in grid for b in row):
        return const(np.block([[b.dense() for b in row if isinstance(b, Const)] for row in grid]))
    rows = []
    for row in grid:
        shape = (row[0].shape[0], sum(b.shape[1] for b in row))
        rows.append(Apply("hstack", tuple(row), shape))
    return Apply("vstack", tuple(rows), (sum(r.shape[0] for r in rows), rows[0].shape[1]))


def coupling(edges: Sequence[Edge], layout: Layout) -> list[list[ParamExpr]]:
    """C by blocks of variables."""
    found = {(e.target, e.source): matrix(e.map) for e in edges}
    sizes = [size(s) for s in layout.shapes]
    return [
        [found.get((a, b), act.zeros((m, n))) for b, n in zip(layout.names, sizes, strict=True)]
        for a, m in zip(layout.names, sizes, strict=True)
    ]


def curvature(terms: Sequence[Term], layout: Layout) -> list[list[ParamExpr]]:
    """P of the quadratic terms by blocks of variables."""
    sizes = [size(s) for s in layout.shapes]
    grid: list[list[ParamExpr]] = [[act.zeros((m, n)) for n in sizes] for m in sizes]
    for term in terms:
        for i, a in enumerate(layout.names):
            for j, b in enumerate(layout.names):
                left, right = term.arg.map_of(a), term.arg.map_of(b)
                if left is not None and right is not None:
                    grid[i][j] = add(grid[i][j], _block(term, left, right))
    return grid


def _block(term: Term, left: LinearMap, right: LinearMap) -> ParamExpr:
    """2 Kᵀ diag(w) L, or 2w Kᵀ P L."""
    weight = const(1.0) if term.weight is None else term.weight
    k, m = matrix(left), matrix(right)
    if term.atom == "square":
        number = _uniform(weight)
        if number is not None:
            return multiply(multiply(const(2.0), number), act.matmul(act.transpose(k), m))
        column = act.reshape(act.spread(weight, term.arg.shape), (size(term.arg.shape), 1))
        return act.matmul(act.transpose(k), multiply(multiply(const(2.0), column), m))
    p = term.data["P"]
    both = add(p, act.transpose(p))
    inner = _known_identity(k), _known_identity(m)
    product = both if inner == (True, True) else act.matmul(act.transpose(k), act.matmul(both, m))
    return multiply(act.reshape(weight, ()), product)


def _known_identity(k: ParamExpr) -> bool:
    return isinstance(k, Const) and k.shape[0] == k.shape[1] and bool((k.dense() == np.eye(k.shape[0])).all())


def _uniform(weight: ParamExpr) -> ParamExpr | None:
    """The weight as one number, where it is one for all entries."""
    if size(weight.shape) == 1:
        return act.reshape(weight, ())
    if isinstance(weight, Const):
        flat = weight.dense().reshape(-1)
        return const(flat[0]) if flat.size and (flat == flat[0]).all() else None
    if isinstance(weight, Apply) and weight.op == "broadcast_to" and size(weight.args[0].shape) == 1:
        return act.reshape(weight.args[0], ())
    return None


def scaled_identity(block: ParamExpr) -> float | None:
    """p where the block is the constant p·I."""
    if not isinstance(block, Const) or block.shape[0] != block.shape[1] or not block.shape[0]:
        return None
    value: Array = block.dense()
    p = float(value[0, 0])
    return p if bool((value == p * np.eye(value.shape[0])).all()) else None
