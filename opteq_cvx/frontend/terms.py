"""The objective as terms: each core is offered to every atom; what no atom knows takes the conic route."""

from opteq_cvx.errors import NotConvexError, UnsupportedError, message
from opteq_cvx.frontend.conic import Conic
from opteq_cvx.frontend.peel import Core, peel
from opteq_cvx.frontend.recognized import function_term, set_term
from opteq_cvx.frontend.scope import Scope
from opteq_cvx.ir.param import Const, ParamExpr, is_zero
from opteq_cvx.ir.program import Origin, Term
from opteq_cvx.ir.tree import Node


def function_terms(node: Node, weight: ParamExpr, scope: Scope, origin: Origin) -> tuple[tuple[Term, ...], ParamExpr]:
    """The terms of weight · node, a scalar convex expression, and its constant part.

    Raises:
        NotConvexError: a constant coefficient has the wrong sign.
        UnsupportedError: a function has no cone form, or data that the conic route needs as numbers.
    """
    peeled = peel(node, weight)
    terms = [t for core in peeled.cores if not is_zero(core.weight) for t in _core_terms(core, scope, origin)]
    if peeled.linear is not None:
        terms.append(Term("linear", peeled.linear, origin))
    return tuple(terms), peeled.offset


def _core_terms(core: Core, scope: Scope, origin: Origin) -> tuple[Term, ...]:
    if isinstance(core.weight, Const) and (core.weight.dense() < 0).any():
        words = f"the convex function {core.node.text} has a negative coefficient"
        fix = "change the sign, or maximize a concave function"
        raise NotConvexError(message(words, "a nonnegative one", fix, origin))
    term = function_term(core.node, core.weight, origin)
    return (term,) if term is not None else Conic(scope, origin).function(core.node, core.weight)


def set_terms(node: Node, origin: Origin) -> tuple[Term, ...]:
    """The term of a set of an affine argument.

    Raises:
        UnsupportedError: no atom is this set.
    """
    term = set_term(node, origin)
    if term is None:
        found, fix = f"no projection onto the cone {node.op}", "write the constraint with another cone"
        raise UnsupportedError(message(found, "a cone that `opteq atoms` lists", fix, origin))
    return (term,)
