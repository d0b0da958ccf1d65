"""A linear map acting on a ParamExpr, and its adjoint: new ParamExprs, with everything easy folded.

Offsets travel through maps forward, weights of the objective backward. Only a scatter with repeated
positions, a sparse matrix and the adjoint of a Kronecker product need operations of their own:
`map` and `map_adjoint`, whose first argument is the value, the others the coefficients of
`attrs["map"]` in the order of `linmap.coefficients`.
"""

import numpy as np

from opteq_cvx.ir import meaning
from opteq_cvx.ir.frozen import Array, FrozenDict, Shape, size
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
    coefficients,
    gather,
)
from opteq_cvx.ir.param import Apply, Const, ParamExpr, add, const, is_zero, multiply


def zeros(shape: Shape) -> Const:
    """A constant zero of this shape that takes no memory."""
    return Const(np.broadcast_to(np.float64(0.0), shape))


def spread(p: ParamExpr, shape: Shape) -> ParamExpr:
    """`p` broadcast to `shape`; a constant takes no new memory."""
    if p.shape == shape:
        return p
    if isinstance(p, Const):
        return Const(np.broadcast_to(p.dense(), shape))
    return Apply("broadcast_to", (p,), shape)


def reshape(p: ParamExpr, shape: Shape, order: str = "C") -> ParamExpr:
    """`p` reshaped."""
    if p.shape == shape:
        return p
    if isinstance(p, Const):
        if not any(p.dense().strides) and p.dense().size:
            return Const(np.broadcast_to(p.dense().flat[0], shape))
        return Const(_locked(np.reshape(p.dense(), shape, order="F" if order == "F" else "C")))
    if isinstance(p, Apply) and p.op == "broadcast_to" and p.args[0].shape == ():
        return spread(p.args[0], shape)
    return Apply("reshape", (p,), shape, FrozenDict(order=order))


def transpose(p: ParamExpr, axes: tuple[int, ...] | None = None) -> ParamExpr:
    """`p` with its axes permuted (reversed by default); a double transpose disappears."""
    axes = tuple(reversed(range(len(p.shape)))) if axes is None else axes
    if axes == tuple(range(len(axes))):
        return p
    if isinstance(p, Const):
        if p.sparse:
            return const(p.value.T)
        return Const(_locked(np.transpose(p.dense(), axes)))
    if isinstance(p, Apply) and p.op == "transpose":
        inner = p.args[0]
        return transpose(inner, tuple(p.attrs["axes"][a] for a in axes))
    return Apply("transpose", (p,), tuple(p.shape[a] for a in axes), FrozenDict(axes=axes))


def matmul(a: ParamExpr, b: ParamExpr) -> ParamExpr:
    """a @ b by NumPy's rules, with constants folded."""
    shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*shape, *a.shape[-2:-1], *(b.shape[-1:] if len(b.shape) > 1 else ()))
    if is_zero(a) or is_zero(b):
        return zeros(shape)
    if isinstance(a, Const) and isinstance(b, Const):
        return const(np.asarray(a.value @ b.dense() if a.sparse else a.dense() @ b.dense()))
    return Apply("matmul", (a, b), shape)


def sum_over(p: ParamExpr, axes: tuple[int, ...], keepdims: bool = False) -> ParamExpr:
    """`p` summed over nonnegative `axes`."""
    if not axes:
        return p
    shape = Sum(axes, p.shape, keepdims).shape_out
    if isinstance(p, Const):
        return const(np.sum(p.dense(), axis=axes, keepdims=keepdims))
    axis = None if len(axes) == len(p.shape) else axes[0] if len(axes) == 1 else axes
    return Apply("sum", (p,), shape, FrozenDict(axis=axis, keepdims=keepdims))


def inner(a: ParamExpr, b: ParamExpr) -> ParamExpr:
    """⟨a, b⟩, with `a` broadcast to the shape of `b`."""
    product = multiply(a, b)
    return sum_over(product, tuple(range(len(product.shape))))


def apply(m: LinearMap, p: ParamExpr) -> ParamExpr:
    """K p as a ParamExpr of shape `m.shape_out`."""
    if isinstance(m, Identity):
        return p
    if isinstance(m, Zero) or is_zero(p):
        return zeros(m.shape_out)
    match m:
        case Diagonal(d=d):
            return spread(multiply(d, p), m.shape_out)
        case LeftMul(a=a):
            return matmul(a, p)
        case RightMul(b=b):
            return matmul(p, b)
        case Reshape(shape_out=shape, order=order):
            return reshape(p, shape, order)
        case Permute(axes=axes):
            return transpose(p, axes)
        case Sum(axes=axes, keepdims=keepdims):
            return sum_over(p, axes, keepdims)
        case Broadcast(shape_out=shape):
            return spread(p, shape)
        case Compose(maps=maps):
            for part in reversed(maps):
                p = apply(part, p)
            return p
        case SumMap(maps=maps):
            return add(*(apply(part, p) for part in maps))
        case Adjoint(of=of):
            return adjoint(of, p)
        case Gather(index=index):
            if isinstance(p, Const):
                return const(meaning.apply(m, p.dense()))
            return Apply("gather", (p,), m.shape_out, FrozenDict(index=index))
        case Kron(a=a, side=side):
            return Apply("kron", (a, p) if side == "left" else (p, a), m.shape_out)
        case Conv2d():
            return _opaque("map_apply", m, p, m.shape_out)
        case Sparse():
            if isinstance(p, Const):
                return const(meaning.apply(m, p.dense()))
            return _opaque("map", m, p, m.shape_out)


def adjoint(m: LinearMap, p: ParamExpr) -> ParamExpr:
    """Kᵀ p as a ParamExpr of shape `m.shape_in`."""
    if isinstance(m, Identity):
        return p
    if isinstance(m, Zero) or is_zero(p):
        return zeros(m.shape_in)
    match m:
        case Diagonal(d=d):
            return spread(multiply(d, p), m.shape_in)
        case LeftMul(a=a):
            return matmul(transpose(a), p)
        case RightMul(b=b):
            return matmul(p, transpose(b))
        case Reshape(shape_in=shape, order=order):
            return reshape(p, shape, order)
        case Permute(axes=axes):
            return transpose(p, tuple(int(i) for i in np.argsort(axes)))
        case Sum(shape_in=shape):
            return spread(reshape(p, meaning.kept(m)), shape)
        case Broadcast(shape_in=shape):
            return reshape(sum_over(p, meaning.spread_axes(m)), shape)
        case Compose(maps=maps):
            for part in maps:
                p = adjoint(part, p)
            return p
        case SumMap(maps=maps):
            return add(*(adjoint(part, p) for part in maps))
        case Adjoint(of=of):
            return apply(of, p)
        case Gather():
            back = inverse(m)
            if back is not None:
                return apply(back, p)
            if isinstance(p, Const):
                return const(meaning.adjoint(m, p.dense()))
            return _opaque("map_adjoint", m, p, m.shape_in)
        case Sparse():
            if isinstance(p, Const):
                return const(meaning.adjoint(m, p.dense()))
            return _opaque("map_adjoint", m, p, m.shape_in)
        case Kron() | Conv2d():
            return _opaque("map_adjoint", m, p, m.shape_in)


def uniform(m: LinearMap, w: ParamExpr) -> ParamExpr | None:
    """The scalar c with Kᵀ(w·1) = c·1, for a scalar w; None where there is none."""
    match m:
        case Identity() | Reshape() | Permute() | Sum():
            return w
        case Diagonal(d=d):
            return multiply(w, d) if d.shape == () else None
        case Broadcast():
            return multiply(w, const(size(m.shape_out) / max(size(m.shape_in), 1)))
        case Gather(index=index):
            moves_all = index.size == size(m.shape_in) and (index >= 0).all()
            return w if moves_all and np.unique(index).size == index.size else None
        case Compose(maps=maps):
            factor: ParamExpr | None = w
            for part in maps:
                factor = None if factor is None else uniform(part, factor)
            return factor
        case Adjoint(of=of) if isinstance(of, Sum | Reshape | Permute):
            ratio = size(of.shape_in) / max(size(of.shape_out), 1)
            return multiply(w, const(ratio))
        case _:
            return None


def inverse(m: Gather) -> LinearMap | None:
    """The adjoint of a gather as a gather: where positions do not repeat; else None."""
    flat = m.index.reshape(-1)
    used = np.flatnonzero(flat >= 0)
    back = np.full(size(m.shape_in), -1, dtype=np.int64)
    back[flat[used]] = used
    if np.count_nonzero(back >= 0) != used.size:
        return None
    return gather(back.reshape(m.shape_in), m.shape_out)


def _opaque(op: str, m: LinearMap, p: ParamExpr, shape: Shape) -> ParamExpr:
    return Apply(op, (p, *coefficients(m)), shape, FrozenDict(map=m))


def _locked(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view
