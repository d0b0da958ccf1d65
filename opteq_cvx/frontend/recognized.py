"""Nodes that an atom knows, as terms."""

from opteq_cvx.atoms import Recognized, recognize
from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import FrozenDict, Shape, size
from opteq_cvx.ir.param import ParamExpr, is_one, multiply
from opteq_cvx.ir.program import Affine, Origin, Term
from opteq_cvx.ir.tree import Node


def function_term(node: Node, weight: ParamExpr, origin: Origin) -> Term | None:
    """weight · node as one term; None where no atom fits."""
    found = recognize(node)
    if found is None:
        return None
    atom, hit = found
    weight = fitted(weight, node.shape, hit)
    if hit.scale is not None:
        weight = multiply(weight, hit.scale)
    return Term(atom.name, hit.arg, origin, None if is_one(weight) else weight, hit.static, hit.data)


def set_term(node: Node, origin: Origin) -> Term | None:
    """A constraint node as one term; None where no atom fits."""
    found = recognize(node)
    if found is None:
        return None
    atom, hit = found
    return Term(atom.name, hit.arg, origin, None, hit.static, hit.data)


def fitted(weight: ParamExpr, shape: Shape, hit: Recognized) -> ParamExpr:
    """The weight in the shape of the atom's value: the argument's shape, reduced axes kept with length 1."""
    target = value_shape(shape, hit.arg, hit.static)
    return act.spread(weight, target) if weight.shape == () else act.reshape(weight, target)


def value_shape(shape: Shape, arg: Affine, static: FrozenDict) -> Shape:
    """The shape of an atom's value, for a node of `shape` (reduced axes dropped or not)."""
    event = arg.shape
    axes = static.get("axes")
    if axes is not None:
        return tuple(1 if i - len(event) in axes else n for i, n in enumerate(event))
    if event[: len(shape)] == shape:  # trailing axes are reduced, or hold the parts of joined arguments
        return (*shape, *(1,) * (len(event) - len(shape)))
    assert size(shape) == 1, f"a value of shape {shape} for an argument of shape {event}"
    return (1,) * len(event)
