"""Linear maps of products with an expression of parameters: elementwise, matrix, Kronecker, convolution."""

from collections.abc import Callable
from typing import Any

import numpy as np

from opteq_cvx.ir import act
from opteq_cvx.ir.affine_shapes import broadcasting, promoting, reshaping, summing
from opteq_cvx.ir.frozen import Shape, size
from opteq_cvx.ir.linmap import (
    Adjoint,
    Kron,
    LeftMul,
    LinearMap,
    RightMul,
    compose,
    diagonal,
    gather,
)
from opteq_cvx.ir.param import Apply, Const, ParamExpr, const, is_one

ProductRule = Callable[[ParamExpr, Shape, Shape, bool], LinearMap]
"""(coefficient, shape of the other argument, shape of the result, coefficient on the left?) → map."""


def unspread(p: ParamExpr, shape: Shape) -> ParamExpr:
    """`p` without an outer broadcast, where what is inside broadcasts to `shape` by itself."""
    if isinstance(p, Apply) and p.op == "broadcast_to":
        core = p.args[0]
        if len(core.shape) <= len(shape) and np.broadcast_shapes(core.shape, shape) == shape:
            return core
    if isinstance(p, Const) and not p.sparse and p.dense().size and not any(p.dense().strides):
        return const(p.dense().flat[0])
    return p


def scaling(d: ParamExpr, shape_in: Shape, shape_out: Shape) -> LinearMap:
    """x ↦ d ∘ x, with x broadcast to the result first where it is smaller."""
    inner = promoting(shape_in, shape_out) if size(shape_in) == 1 else broadcasting(shape_in, shape_out)
    thin = unspread(d, shape_out)
    if isinstance(thin, Const) and not thin.sparse and thin.dense().size:
        flat = thin.dense().reshape(-1)
        thin = const(flat[0]) if (flat == flat[0]).all() else thin
    return compose(diagonal(thin, shape_out), inner)


def _multiply(d: ParamExpr, shape_in: Shape, shape_out: Shape, left: bool) -> LinearMap:
    return scaling(d, shape_in, shape_out)


def _divide(d: ParamExpr, shape_in: Shape, shape_out: Shape, left: bool) -> LinearMap:
    return scaling(reciprocal(unspread(d, shape_out)), shape_in, shape_out)


def reciprocal(d: ParamExpr) -> ParamExpr:
    """1 / d."""
    if isinstance(d, Const):
        return const(1.0 / d.dense())
    return Apply("divide", (const(1.0), d), d.shape)


def _matmul(c: ParamExpr, shape_in: Shape, shape_out: Shape, left: bool) -> LinearMap:
    if len(c.shape) == 1 and len(shape_in) == 1:
        return compose(summing(shape_in, None), diagonal(c, shape_in))
    c = _unbatched(c)
    if len(c.shape) > 2:
        return _batched(c, shape_in, shape_out, left)
    return _left(c, shape_in, shape_out) if left else _right(c, shape_in, shape_out)


def _left(a: ParamExpr, shape_in: Shape, shape_out: Shape) -> LinearMap:
    """A @ X with A (n,) or (m, n)."""
    if len(a.shape) == 1:
        row = LeftMul(act.reshape(a, (1, *a.shape)), shape_in)
        return compose(reshaping(row.shape_out, shape_out), row)
    if a.shape[1] == 1 and is_one(a) and len(shape_in) == 2:
        return broadcasting(shape_in, shape_out)  # CVXPY's own broadcast along rows
    d = diagonal_of(a)
    if d is None:
        return LeftMul(a, shape_in)
    return diagonal(d if len(shape_in) == 1 else act.reshape(d, (*d.shape, 1)), shape_in)


def _right(b: ParamExpr, shape_in: Shape, shape_out: Shape) -> LinearMap:
    """X @ B with B (n,) or (n, k)."""
    if len(b.shape) == 1:
        column = RightMul(act.reshape(b, (*b.shape, 1)), shape_in)
        return compose(reshaping(column.shape_out, shape_out), column)
    if b.shape[0] == 1 and is_one(b) and len(shape_in) == 2:
        return broadcasting(shape_in, shape_out)
    d = diagonal_of(b)
    return RightMul(b, shape_in) if d is None else diagonal(d, shape_in)


def _batched(c: ParamExpr, shape_in: Shape, shape_out: Shape, left: bool) -> LinearMap:
    """Matrix products over leading axes, as a broadcast, an elementwise product and a sum."""
    if left:  # out[..., i, k] = Σ_j c[..., i, j] x[..., j, k]
        x = (*shape_in[:-2], 1, *shape_in[-2:]) if len(shape_in) > 1 else (1, *shape_in, 1)
        d = act.reshape(c, (*c.shape, 1))
        axis = -2
    else:  # out[..., i, k] = Σ_j x[..., i, j] c[..., j, k]
        x = (*shape_in, 1) if len(shape_in) > 1 else (1, *shape_in, 1)
        d = act.reshape(c, (*c.shape[:-2], 1, *c.shape[-2:]))
        axis = -2
    full = np.broadcast_shapes(x, d.shape)
    inner = compose(broadcasting(x, full), reshaping(shape_in, x))
    product = compose(summing(full, axis), compose(diagonal(d, full), inner))
    return compose(reshaping(product.shape_out, shape_out), product)


def _unbatched(c: ParamExpr) -> ParamExpr:
    """`c` without the leading axes that only repeat it."""
    if len(c.shape) <= 2:
        return c
    if isinstance(c, Apply) and c.op == "broadcast_to" and c.args[0].shape == c.shape[-2:]:
        return c.args[0]
    if isinstance(c, Const) and not any(c.dense().strides[:-2]):
        return const(c.dense()[(0,) * (len(c.shape) - 2)])
    return c


def diagonal_of(a: ParamExpr) -> ParamExpr | None:
    """The diagonal (n,) of a constant diagonal matrix; None for any other."""
    if not isinstance(a, Const) or a.shape[0] != a.shape[1]:
        return None
    value: Any = a.value
    d = value.diagonal()
    if np.count_nonzero(d) != (value.count_nonzero() if a.sparse else np.count_nonzero(value)):
        return None
    return const(d)


def _kron(a: ParamExpr, shape_in: Shape, shape_out: Shape, left: bool) -> LinearMap:
    return Kron(a, shape_in, "left" if left else "right")


def _convolve(a: ParamExpr, shape_in: Shape, shape_out: Shape, left: bool) -> LinearMap:
    """out[k] = Σ_{i+j=k} a[i] x[j]: an outer product summed along its antidiagonals."""
    p, n = size(a.shape), size(shape_in)
    full = (p, n)
    rows = compose(broadcasting((n,), full), reshaping(shape_in, (n,)))
    product = compose(diagonal(act.reshape(a, (p, 1)), full), rows)
    antidiagonals = np.add.outer(np.arange(p), np.arange(n))
    added = compose(Adjoint(gather(antidiagonals, (p + n - 1,))), product)
    return compose(reshaping((p + n - 1,), shape_out), added)


PRODUCT_RULES: dict[str, ProductRule] = {
    "conv": _convolve,
    "convolve": _convolve,
    "divide": _divide,
    "kron": _kron,
    "matmul": _matmul,
    "multiply": _multiply,
}
