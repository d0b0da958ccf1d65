"""Nodes as terms: each core is offered to every atom; what no atom knows goes to `unrecognized`."""

from opteq_cvx.atoms import Recognized, recognize
from opteq_cvx.errors import NotConvexError, UnsupportedError, message
from opteq_cvx.frontend.peel import Core, peel
from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import FrozenDict, Shape, size
from opteq_cvx.ir.param import Const, ParamExpr, is_one, is_zero, multiply
from opteq_cvx.ir.program import Affine, Origin, Term
from opteq_cvx.ir.tree import Node


def function_terms(node: Node, weight: ParamExpr, origin: Origin) -> tuple[tuple[Term, ...], ParamExpr]:
    """The terms of weight · node, a scalar convex expression, and its constant part.

    Raises:
        UnsupportedError: some part has no prox.
        NotConvexError: a constant coefficient has the wrong sign.
    """
    peeled = peel(node, weight)
    terms = [t for core in peeled.cores if not is_zero(core.weight) for t in _core_terms(core, origin)]
    if peeled.linear is not None:
        terms.append(Term("linear", peeled.linear, origin))
    return tuple(terms), peeled.offset


def set_terms(node: Node, origin: Origin) -> tuple[Term, ...]:
    """The terms of a constraint node."""
    found = recognize(node)
    if found is None:
        return unrecognized(node, None, origin)
    atom, hit = found
    return (Term(atom.name, hit.arg, origin, None, hit.static, hit.data),)


def _core_terms(core: Core, origin: Origin) -> tuple[Term, ...]:
    if isinstance(core.weight, Const) and (core.weight.dense() < 0).any():
        words = f"the convex function {core.node.text} has a negative coefficient"
        fix = "change the sign, or maximize a concave function"
        raise NotConvexError(message(words, "a nonnegative one", fix, origin))
    found = recognize(core.node)
    if found is None:
        return unrecognized(core.node, core.weight, origin)
    atom, hit = found
    weight = fitted(core.weight, core.node.shape, hit)
    if hit.scale is not None:
        weight = multiply(weight, hit.scale)
    return (Term(atom.name, hit.arg, origin, None if is_one(weight) else weight, hit.static, hit.data),)


def fitted(weight: ParamExpr, shape: Shape, hit: Recognized) -> ParamExpr:
    """The weight in the shape of the atom's value: the argument's shape, reduced axes kept with length 1."""
    target = value_shape(shape, hit.arg, hit.static)
    return act.spread(weight, target) if weight.shape == () else act.reshape(weight, target)


def value_shape(shape: Shape, arg: Affine, static: FrozenDict) -> Shape:
    """The shape of an atom's value, for a node of `shape` (reduced axes dropped or not)."""
    event = arg.shape
    if shape == event:
        return event
    axes = static.get("axes")
    if axes is not None:
        return tuple(1 if i - len(event) in axes else n for i, n in enumerate(event))
    if event[: len(shape)] == shape:  # trailing axes are reduced, or hold the parts of joined arguments
        return (*shape, *(1,) * (len(event) - len(shape)))
    assert size(shape) == 1, f"a value of shape {shape} for an argument of shape {event}"
    return (1,) * len(event)


def unrecognized(node: Node, weight: ParamExpr | None, origin: Origin) -> tuple[Term, ...]:
    """Terms for a part that no atom knows; `weight` is None for a constraint. The conic route plugs in here.

    Raises:
        UnsupportedError: always, until there is a conic route.
    """
    what = "constraint" if weight is None else "term"
    words = "" if node.text == origin.text else f' "{node.text}"'
    names = ", ".join(sorted({n.op for n in _operations(node)}))
    raise UnsupportedError(
        message(
            f"no direct prox covers the {what}{words} ({names}) yet",
            "a sum of functions that `opteq atoms` lists, each of an affine argument",
            "give the inner expression a variable of its own, `y == inner`, so that each function acts on an "
            "affine argument; or replace the function by a listed one",
            origin,
        )
    )


def _operations(node: Node) -> list[Node]:
    own = [] if node.op in ("affine", "param") else [node]
    return [*own, *(n for arg in node.args for n in _operations(arg))]
