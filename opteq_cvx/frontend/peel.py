"""A scalar convex expression as weighted cores, linear terms and a constant.

The coefficient of each part is pushed down through sums, products and rearrangements by the adjoint of their
maps. A coefficient that is the same for all entries stays a scalar ParamExpr for as long as it can.
"""

from dataclasses import dataclass, field

from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.linmap import LinearMap, Sum, compose, diagonal
from opteq_cvx.ir.param import ParamExpr, add, multiply, neg
from opteq_cvx.ir.program import Affine
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class Core:
    """⟨weight, f(...)⟩: `weight` is a scalar (the same for all entries) or has the node's shape."""

    node: Node
    weight: ParamExpr


@dataclass(frozen=True, slots=True)
class Peeled:
    """Σ cores + linear + offset; `linear` is scalar, without offset, None where nothing is linear."""

    cores: tuple[Core, ...]
    linear: Affine | None
    offset: ParamExpr


@dataclass(slots=True)
class _Found:
    cores: list[Core] = field(default_factory=list)
    linear: list[Affine] = field(default_factory=list)
    offsets: list[ParamExpr] = field(default_factory=list)


def peel(node: Node, weight: ParamExpr) -> Peeled:
    """⟨weight, node⟩ in parts; `weight` is a scalar or has the node's shape."""
    found = _Found()
    _peel(node, weight, found)
    linear = aff.add(*found.linear) if found.linear else None
    offset = add(*found.offsets) if found.offsets else act.zeros(())
    return Peeled(tuple(found.cores), linear if linear is not None and linear.parts else None, offset)


def _peel(node: Node, weight: ParamExpr, found: _Found) -> None:
    if node.param is not None:
        found.offsets.append(_inner(weight, node.param))
    elif node.affine is not None:
        parts = aff.image(functional(weight, node.affine), Affine(node.affine.parts, act.zeros(node.shape)))
        found.linear.append(parts)
        found.offsets.append(_inner(weight, node.affine.offset))
    elif node.op == "add":
        for arg in node.args:
            _peel(arg, weight, found)
    elif node.op == "neg":
        _peel(node.args[0], neg(weight), found)
    elif node.op in ("linear", "sum"):
        m = node.attrs["map"]
        same = act.uniform(m, weight) if weight.shape == () else None
        pushed = act.adjoint(m, act.spread(weight, m.shape_out)) if same is None else same
        _peel(node.args[0], pushed, found)
    else:
        found.cores.append(Core(node, weight))


def _inner(weight: ParamExpr, p: ParamExpr) -> ParamExpr:
    everything = tuple(range(len(p.shape)))
    if weight.shape == ():
        return multiply(weight, act.sum_over(p, everything))
    return act.inner(weight, p)


def functional(weight: ParamExpr, x: Affine) -> LinearMap:
    """z ↦ ⟨weight, z⟩."""
    if x.shape == ():
        return diagonal(weight, ())
    total = Sum(tuple(range(len(x.shape))), x.shape)
    if weight.shape == ():
        return compose(diagonal(weight, ()), total)
    return compose(total, diagonal(weight, x.shape))
