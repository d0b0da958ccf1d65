"""The NumPy meaning of linear maps: what every other evaluation of a map must agree with."""

from collections.abc import Callable

import numpy as np

from opteq_cvx.ir.frozen import Array, Shape, size
from opteq_cvx.ir.linmap import (
    Adjoint,
    Broadcast,
    Compose,
    Conv2d,
    Diagonal,
    Gather,
    Identity,
    Kron,
    LeftMul,
    LinearMap,
    Permute,
    Reshape,
    RightMul,
    Sparse,
    Sum,
    SumMap,
    Zero,
)
from opteq_cvx.ir.param import Const, ParamExpr

Values = Callable[[ParamExpr], Array]
"""Gives a coefficient its value, dense."""


def constant_value(expr: ParamExpr) -> Array:
    """The value of a constant coefficient."""
    assert isinstance(expr, Const), "only constants have a value without parameters"
    return expr.dense()


def apply(m: LinearMap, x: Array, values: Values = constant_value) -> Array:
    """K x for x of shape `m.shape_in`."""
    match m:
        case Identity():
            return x
        case Zero(shape_out=shape):
            return np.zeros(shape)
        case Diagonal(d=d):
            return np.asarray(values(d) * x)
        case LeftMul(a=a):
            return np.asarray(values(a) @ x)
        case RightMul(b=b):
            return np.asarray(x @ values(b))
        case Gather(index=index):
            return np.asarray(np.append(x.reshape(-1), 0.0)[index], dtype=np.float64)
        case Reshape(shape_out=shape, order=order):
            return np.reshape(x, shape, order="F" if order == "F" else "C")
        case Permute(axes=axes):
            return np.transpose(x, axes)
        case Sum(axes=axes, keepdims=keepdims):
            return np.asarray(np.sum(x, axis=axes, keepdims=keepdims))
        case Broadcast(shape_out=shape):
            return np.broadcast_to(x, shape)
        case Sparse(matrix=matrix, shape_out=shape):
            return np.asarray(matrix @ x.reshape(-1)).reshape(shape)
        case Compose(maps=maps):
            for part in reversed(maps):
                x = apply(part, x, values)
            return x
        case SumMap(maps=maps):
            return np.asarray(np.sum([apply(part, x, values) for part in maps], axis=0))
        case Adjoint(of=of):
            return adjoint(of, x, values)
        case Conv2d(kernel=kernel):
            return correlate(x, values(kernel), m)
        case Kron():
            left, right = (values(m.a), x) if m.side == "left" else (x, values(m.a))
            return np.asarray(np.kron(left, right), dtype=np.float64)


def adjoint(m: LinearMap, y: Array, values: Values = constant_value) -> Array:
    """Kᵀ y for y of shape `m.shape_out`."""
    match m:
        case Identity() | Diagonal():
            return apply(m, y, values)
        case Zero(shape_in=shape):
            return np.zeros(shape)
        case LeftMul(a=a):
            return np.asarray(values(a).T @ y)
        case RightMul(b=b):
            return np.asarray(y @ values(b).T)
        case Gather(index=index, shape_in=shape):
            out = np.zeros(size(shape) + 1)
            np.add.at(out, index.reshape(-1), y.reshape(-1))
            return out[:-1].reshape(shape)
        case Reshape(shape_in=shape, order=order):
            return np.reshape(y, shape, order="F" if order == "F" else "C")
        case Permute(axes=axes):
            return np.transpose(y, np.argsort(axes))
        case Sum(shape_in=shape):
            return np.broadcast_to(y.reshape(kept(m)), shape)
        case Broadcast(shape_in=shape):
            return np.asarray(np.sum(y, axis=spread_axes(m))).reshape(shape)
        case Sparse(matrix=matrix, shape_in=shape):
            return np.asarray(matrix.T @ y.reshape(-1)).reshape(shape)
        case Compose(maps=maps):
            for part in maps:
                y = adjoint(part, y, values)
            return y
        case SumMap(maps=maps):
            return np.asarray(np.sum([adjoint(part, y, values) for part in maps], axis=0))
        case Adjoint(of=of):
            return apply(of, y, values)
        case Conv2d(kernel=kernel):
            return correlate_adjoint(y, values(kernel), m)
        case Kron(a=a):
            (p, q), (rows, columns) = a.shape, m.shape_in
            if m.side == "left":
                return np.asarray(np.einsum("ij,iajb->ab", values(a), y.reshape(p, rows, q, columns)))
            return np.asarray(np.einsum("ij,aibj->ab", values(a), y.reshape(rows, p, columns, q)))


def correlate(x: Array, kernel: Array, m: Conv2d) -> Array:
    """out[o, i, j] = Σ kernel[o, c, a, b] · x[c, stride·i + a − padding, stride·j + b − padding] within a group."""
    (sh, sw), (ph, pw), g = m.stride, m.padding, m.groups
    padded = np.pad(x, ((0, 0), (ph, ph), (pw, pw)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2:], axis=(1, 2))[:, ::sh, ::sw]
    grouped = patches.reshape(g, -1, *patches.shape[1:])
    filters = kernel.reshape(g, -1, *kernel.shape[1:])
    return np.asarray(np.einsum("gocab,gcijab->goij", filters, grouped)).reshape(m.shape_out)


def correlate_adjoint(y: Array, kernel: Array, m: Conv2d) -> Array:
    """The adjoint of `correlate`: every output is spread over the window it came from."""
    (sh, sw), (ph, pw), g = m.stride, m.padding, m.groups
    c, h, w = m.shape_in
    padded = np.zeros((g, c // g, h + 2 * ph, w + 2 * pw))
    grouped = y.reshape(g, -1, *m.shape_out[1:])
    filters = kernel.reshape(g, -1, *kernel.shape[1:])
    rows, columns = m.shape_out[1:]
    for a, b in np.ndindex(*kernel.shape[2:]):
        window = (slice(a, a + sh * rows, sh), slice(b, b + sw * columns, sw))
        padded[:, :, *window] += np.einsum("goc,goij->gcij", filters[..., a, b], grouped)
    return padded.reshape(c, h + 2 * ph, w + 2 * pw)[:, ph : ph + h, pw : pw + w]


def kept(m: Sum) -> Shape:
    """The shape of a sum's result with the summed axes kept at length 1."""
    return tuple(1 if i in m.axes else n for i, n in enumerate(m.shape_in))


def spread_axes(m: Broadcast) -> tuple[int, ...]:
    """The axes of a broadcast's result along which entries repeat."""
    new = len(m.shape_out) - len(m.shape_in)
    same = enumerate(zip(m.shape_in, m.shape_out[new:], strict=True))
    return (*range(new), *(new + i for i, (a, b) in same if a != b))


def matrix(m: LinearMap, values: Values = constant_value) -> Array:
    """K as a dense matrix between C-ordered flat vectors; for tests and small maps."""
    basis = np.eye(size(m.shape_in)).reshape(-1, *m.shape_in)
    columns = [apply(m, e, values).reshape(-1) for e in basis]
    return np.stack(columns, axis=1) if columns else np.zeros((size(m.shape_out), 0))
