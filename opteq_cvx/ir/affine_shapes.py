"""Linear maps of CVXPY's affine atoms that move, repeat or add entries: one map per argument."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from opteq_cvx.ir.frozen import IntArray, Shape, size
from opteq_cvx.ir.linmap import (
    Broadcast,
    Identity,
    LeftMul,
    LinearMap,
    Permute,
    Reshape,
    RightMul,
    Sum,
    compose,
    diagonal,
    gather,
)
from opteq_cvx.ir.param import const

Attrs = Mapping[str, Any]
ShapeRule = Callable[[tuple[Shape, ...], Shape, Attrs], tuple[LinearMap, ...]]
"""(shapes of the arguments, shape of the result, attributes) → the map of each argument."""


def positions(shape: Shape) -> IntArray:
    """The flat C-order position of each entry."""
    return np.arange(size(shape)).reshape(shape)


def broadcasting(shape_in: Shape, shape_out: Shape) -> LinearMap:
    """Broadcast by NumPy's rules."""
    return Identity(shape_in) if shape_in == shape_out else Broadcast(shape_in, shape_out)


def reshaping(shape_in: Shape, shape_out: Shape, order: str = "C") -> LinearMap:
    """A reshape; where both orders agree it is written in C order, so that reshapes cancel."""
    if shape_in == shape_out:
        return Identity(shape_in)
    long_in, long_out = ([n for n in s if n != 1] for s in (shape_in, shape_out))
    same = long_in == long_out or (len(long_in) <= 1 and len(long_out) <= 1)
    return Reshape(shape_in, shape_out, "C" if same else order)


def permuting(shape_in: Shape, axes: tuple[int, ...]) -> LinearMap:
    """A permutation of axes, or the identity."""
    return Identity(shape_in) if axes == tuple(range(len(axes))) else Permute(axes, shape_in)


def summing(shape_in: Shape, axis: int | tuple[int, ...] | None, keepdims: bool = False) -> LinearMap:
    """The sum over `axis` as NumPy and CVXPY write it."""
    axes = reduced(axis, len(shape_in))
    return Sum(axes, shape_in, keepdims) if axes else Identity(shape_in)


def reduced(axis: int | tuple[int, ...] | None, rank: int) -> tuple[int, ...]:
    """The axes that `axis` names, nonnegative and sorted."""
    if axis is None:
        return tuple(range(rank))
    axes = (axis,) if isinstance(axis, int | np.integer) else axis
    return tuple(sorted(int(a) % rank for a in axes))


def promoting(shape_in: Shape, shape_out: Shape) -> LinearMap:
    """One entry of any shape repeated everywhere."""
    inner = reshaping(shape_in, ())
    return compose(broadcasting((), shape_out), inner)


def _add(shapes: tuple[Shape, ...], out: Shape, attrs: Attrs) -> tuple[LinearMap, ...]:
    return tuple(promoting(s, out) if size(s) == 1 else broadcasting(s, out) for s in shapes)


def _neg(shapes: tuple[Shape, ...], out: Shape, attrs: Attrs) -> tuple[LinearMap, ...]:
    return (diagonal(const(-1.0), out),)


def _gather(shapes: tuple[Shape, ...], out: Shape, attrs: Attrs) -> tuple[LinearMap, ...]:
    if np.array_equal(attrs["index"].reshape(-1), np.arange(size(shapes[0]))):
        return (reshaping(shapes[0], out),)  # a new axis, or nothing
    return (gather(attrs["index"], shapes[0]),)


def _stacking(stack: Callable[[list[IntArray], Attrs], Any]) -> ShapeRule:
    """Stacks: each argument goes to its place by zero padding; the places come from stacking positions."""

    def rule(shapes: tuple[Shape, ...], out: Shape, attrs: Attrs) -> tuple[LinearMap, ...]:
        sources = [positions(s) for s in shapes]
        owners = stack([np.full(s, i) for i, s in enumerate(shapes)], attrs).reshape(out)
        where = stack(sources, attrs).reshape(out)
        return tuple(gather(np.where(owners == i, where, -1), s) for i, s in enumerate(shapes))

    return rule


def _diag_vec(shapes: tuple[Shape, ...], out: Shape, attrs: Attrs) -> tuple[LinearMap, ...]:
    flat = positions(shapes[0]).reshape(-1)
    return (gather((np.diag(flat + 1, k=attrs["k"]) - 1).reshape(out), shapes[0]),)


def _diag_mat(shapes: tuple[Shape, ...], out: Shape, attrs: Attrs) -> tuple[LinearMap, ...]:
    return (gather(np.diag(positions(shapes[0]), k=attrs["k"]).reshape(out), shapes[0]),)


def _trace(shapes: tuple[Shape, ...], out: Shape, attrs: Attrs) -> tuple[LinearMap, ...]:
    picked = np.diagonal(positions(shapes[0]), axis1=-2, axis2=-1)
    return (compose(summing(picked.shape, len(picked.shape) - 1), gather(picked, shapes[0])),)


def _upper_tri(shapes: tuple[Shape, ...], out: Shape, attrs: Attrs) -> tuple[LinearMap, ...]:
    rows, columns = np.triu_indices(shapes[0][-1], k=1)
    return (gather(positions(shapes[0])[..., rows, columns].reshape(out), shapes[0]),)


def _cumsum(shapes: tuple[Shape, ...], out: Shape, attrs: Attrs) -> tuple[LinearMap, ...]:
    shape = shapes[0]
    if not shape:
        return (Identity(shape),)
    if attrs["axis"] is None:
        flat = (size(shape),)
        return (compose(LeftMul(_lower_ones(size(shape)), flat), reshaping(shape, flat)),)
    axis, n = attrs["axis"] % len(shape), shape[attrs["axis"]]
    if len(shape) == 1 or axis == len(shape) - 2:
        return (LeftMul(_lower_ones(n), shape),)
    if axis == len(shape) - 1:
        return (RightMul(const(_lower_ones(n).value.T), shape),)
    axes = (*(i for i in range(len(shape)) if i != axis), axis)
    moved = permuting(shape, axes)
    back = tuple(int(i) for i in np.argsort(axes))
    multiplied = RightMul(const(_lower_ones(n).value.T), moved.shape_out)
    return (compose(permuting(moved.shape_out, back), compose(multiplied, moved)),)


def _lower_ones(n: int) -> Any:
    return const(np.tril(np.ones((n, n))))


SHAPE_RULES: dict[str, ShapeRule] = {
    "add": _add,
    "broadcast_to": lambda shapes, out, attrs: (broadcasting(shapes[0], out),),
    "concatenate": _stacking(lambda parts, attrs: np.concatenate(parts, axis=attrs["axis"])),
    "cumsum": _cumsum,
    "diag_mat": _diag_mat,
    "diag_vec": _diag_vec,
    "gather": _gather,
    "hstack": _stacking(lambda parts, attrs: np.hstack(parts)),
    "neg": _neg,
    "promote": lambda shapes, out, attrs: (promoting(shapes[0], out),),
    "reshape": lambda shapes, out, attrs: (reshaping(shapes[0], out, attrs["order"]),),
    "sum": lambda shapes, out, attrs: (summing(shapes[0], attrs["axis"], attrs["keepdims"]),),
    "trace": _trace,
    "transpose": lambda shapes, out, attrs: (permuting(shapes[0], attrs["axes"]),),
    "upper_tri": _upper_tri,
    "vstack": _stacking(lambda parts, attrs: np.vstack(parts)),
    "wrap": lambda shapes, out, attrs: (Identity(shapes[0]),),
}
