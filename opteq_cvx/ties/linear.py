"""An expression of parameters as an affine function of some of them, by structure: how tied parameters enter.

Operations keep CVXPY's meaning: each rule gives the linear map of the one argument that holds a tied parameter.
"""

from collections.abc import Collection, Sequence

import numpy as np

from opteq_cvx.ir import act, meaning
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.affine_products import PRODUCT_RULES
from opteq_cvx.ir.affine_shapes import SHAPE_RULES
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
)
from opteq_cvx.ir.param import Apply, Leaf, ParamExpr, leaves
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
    found: list[Affine] = []
    for at, linear in _maps(expr, [i for i, a in enumerate(expr.args) if holds(a, names)]):
        inner = affine_in(expr.args[at], names)
        if inner is None:
            return None
        found.append(aff.image(linear, inner))
    return aff.add(*found) if found else None


def _maps(node: Apply, holding: Sequence[int]) -> list[tuple[int, LinearMap]]:
    """The linear map of each argument; of the one argument that holds tied parameters where the operation is a product.

    Nothing where the operation is not linear.
    """
    if node.op in SHAPE_RULES:
        return list(enumerate(SHAPE_RULES[node.op](tuple(a.shape for a in node.args), node.shape, node.attrs)))
    if len(holding) != 1:
        return []
    at = holding[0]
    if node.op in PRODUCT_RULES and (at == 0 or node.op != "divide"):
        return [(at, PRODUCT_RULES[node.op](node.args[1 - at], node.args[at].shape, node.shape, at == 1))]
    if node.op in ("map", "map_adjoint") and at == 0:
        return [(0, node.attrs["map"] if node.op == "map" else transposed(node.attrs["map"]))]
    return []


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
