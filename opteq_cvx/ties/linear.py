"""An expression of parameters as an affine function of some of them, by structure: how tied parameters enter.

Operations keep CVXPY's meaning: each rule gives the linear map of the one argument that holds a tied parameter.
"""

from collections.abc import Collection

import numpy as np

from opteq_cvx.ir import act, meaning
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.frozen import Shape
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
    Sum,
    SumMap,
    coefficients,
    compose,
    diagonal,
    gather,
)
from opteq_cvx.ir.param import Apply, Leaf, ParamExpr, const, leaves
from opteq_cvx.ir.program import Affine


def holds(expr: ParamExpr, names: Collection[str]) -> bool:
    """Whether a leaf with one of these names occurs in `expr`."""
    return any(leaf.name in names for leaf in leaves(expr))


def affine_in(expr: ParamExpr, names: Collection[str]) -> Affine | None:
    """Σ K_z z + b with the leaves `names` as z, each part under the leaf's name; None where it is not affine."""
    if not holds(expr, names):
        return aff.of_param(expr)
    if isinstance(expr, Leaf):
        return aff.of_variable(expr.name, expr.shape)
    assert isinstance(expr, Apply), "constants hold no leaf"
    if expr.op == "add":
        terms = [affine_in(a, names) for a in expr.args]
        kept = [aff.broadcast(t, expr.shape) for t in terms if t is not None]
        return aff.add(*kept) if len(kept) == len(terms) else None
    at = [i for i, a in enumerate(expr.args) if holds(a, names)]
    if len(at) != 1:
        return None
    linear = _map(expr, at[0])
    inner = affine_in(expr.args[at[0]], names) if linear is not None else None
    return None if linear is None or inner is None else aff.image(linear, inner)


def _map(node: Apply, at: int) -> LinearMap | None:
    """The linear map of the argument at position `at`, the other ones held fixed; None where it is not linear."""
    shape_in, shape_out = node.args[at].shape, node.shape
    other = node.args[1 - at] if len(node.args) == 2 else None
    match node.op:
        case "neg":
            return diagonal(const(-1.0), shape_in)
        case "multiply" if other is not None:
            return compose(diagonal(other, shape_out), _broadcast(shape_in, shape_out))
        case "divide" if other is not None and at == 0:
            inverse = Apply("divide", (const(1.0), other), other.shape)
            return compose(diagonal(inverse, shape_out), _broadcast(shape_in, shape_out))
        case "matmul" if other is not None:
            return _product(other, shape_in, shape_out, left=at == 1)
        case "reshape" | "vec":
            return Reshape(shape_in, shape_out, "F" if node.attrs.get("order", "F") == "F" else "C")
        case "transpose":
            axes = node.attrs.get("axes") or tuple(reversed(range(len(shape_in))))
            return Permute(tuple(axes), shape_in) if axes != tuple(range(len(shape_in))) else Identity(shape_in)
        case "gather":
            return gather(node.attrs["index"], shape_in)
        case "broadcast_to" | "promote":
            return _broadcast(shape_in, shape_out)
        case "sum":
            axes = _axes(node.attrs.get("axis"), len(shape_in))
            return Sum(axes, shape_in, bool(node.attrs.get("keepdims", False))) if axes else Identity(shape_in)
        case "map" if at == 0:
            return node.attrs["map"]  # type: ignore[no-any-return]
        case "map_adjoint" if at == 0:
            return transposed(node.attrs["map"])
        case _:
            return None


def _axes(axis: int | tuple[int, ...] | None, rank: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(rank))
    return tuple(sorted(a % rank for a in (axis if isinstance(axis, tuple) else (axis,))))


def _broadcast(shape_in: Shape, shape_out: Shape) -> LinearMap:
    return Identity(shape_in) if shape_in == shape_out else Broadcast(shape_in, shape_out)


def _product(c: ParamExpr, shape_in: Shape, shape_out: Shape, *, left: bool) -> LinearMap | None:
    """x ↦ c @ x, or x @ c, for matrices and vectors."""
    if len(c.shape) > 2 or len(shape_in) > 2:
        return None
    if left:
        a = act.reshape(c, (1, *c.shape)) if len(c.shape) == 1 else c
        product: LinearMap = LeftMul(a, shape_in)
    else:
        b = act.reshape(c, (*c.shape, 1)) if len(c.shape) == 1 else c
        product = RightMul(b, shape_in)
    out = product.shape_out
    return product if out == shape_out else compose(Reshape(out, shape_out, "C"), product)


def transposed(m: LinearMap) -> LinearMap:
    """Kᵀ, by structure where it has a form of its own."""
    match m:
        case Identity() | Diagonal():
            return m
        case LeftMul(a=a):
            return LeftMul(act.transpose(a), m.shape_out)
        case RightMul(b=b):
            return RightMul(act.transpose(b), m.shape_out)
        case Reshape(order=order):
            return Reshape(m.shape_out, m.shape_in, order)
        case Permute(axes=axes):
            return Permute(tuple(int(i) for i in np.argsort(axes)), m.shape_out)
        case Adjoint(of=of):
            return of
        case Compose(maps=maps):
            out: LinearMap = Identity(m.shape_out)
            for part in maps:
                out = compose(transposed(part), out)
            return out
        case SumMap(maps=maps):
            return SumMap(tuple(transposed(part) for part in maps))
        case Gather():
            back = act.inverse(m)
            return Adjoint(m) if back is None else back
        case Sum(shape_in=shape):
            kept = meaning.kept(m)
            spread = Identity(shape) if kept == shape else Broadcast(kept, shape)
            return compose(spread, Reshape(m.shape_out, kept, "C")) if m.shape_out != kept else spread
        case _:
            return Adjoint(m)


def holds_map(m: LinearMap, names: Collection[str]) -> bool:
    """Whether a coefficient of the map holds one of these leaves."""
    return any(holds(c, names) for c in coefficients(m))
