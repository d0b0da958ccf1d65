"""The conic route: what no atom knows, as epigraphs over cones. Every DCP expression compiles by it.

A function f(K g(x) + a) of functions g is f at K s + a with s ≥ g(x): by the rules of DCP the bound is tight at a
solution. K, a and the weights keep their structure and their parameters; only a single f of plain variables meets
CVXPY's canonicalization (`cone_form`), with constant data. A bound g(x) ≤ s that some atom knows is that atom's set.
"""

from dataclasses import dataclass, field
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.atoms.affine.wraps import symmetric_wrap

from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.frontend.cone_form import ConeForm, ConeRows, cone_form, epigraph, structured
from opteq_cvx.frontend.convex_functions import rebuild
from opteq_cvx.frontend.nodes import affine_node, as_affine, image
from opteq_cvx.frontend.peel import functional
from opteq_cvx.frontend.power_cones import power_tree
from opteq_cvx.frontend.quadratic_form import squares_of_form
from opteq_cvx.frontend.recognized import function_term, set_term
from opteq_cvx.frontend.scope import Scope
from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.affine_products import reciprocal
from opteq_cvx.ir.frozen import EMPTY, FrozenDict
from opteq_cvx.ir.linmap import diagonal
from opteq_cvx.ir.param import Const, ParamExpr, const, multiply
from opteq_cvx.ir.program import Affine, Origin, Term
from opteq_cvx.ir.tree import Node

CONSTANT_ARGUMENTS = {"dotsort": 1, "huber": 1}
"""Operations whose argument at this position is part of the function's data."""


@dataclass(slots=True)
class Conic:
    """The conic route for one term or constraint of the user; `terms` collects what it needs beside the result."""

    scope: Scope
    origin: Origin
    terms: list[Term] = field(default_factory=list)

    def function(self, node: Node, weight: ParamExpr) -> tuple[Term, ...]:
        """weight · node, a function that no atom knows as it stands."""
        flat = self.flat(node)
        term = function_term(flat, weight, self.origin) if flat is not node else None
        if term is None:
            bound = self.scope.fresh("t", node.shape)
            term = Term("linear", aff.image(functional(weight, bound), bound), self.origin)
            self.below(flat, bound)
        return (term, *self.terms)

    def value(self, node: Node) -> Affine:
        """A convex node as an affine expression of bounds of its functions."""
        if node.affine is not None or node.param is not None:
            return as_affine(node)
        if node.op == "add":
            return aff.add(*(self.value(a) for a in node.args))
        if node.op == "neg":
            return aff.negative(self.value(node.args[0]))
        squares = _sum_of_squares(node)
        if squares is not None:
            return self.bound(squares)
        if node.op in ("linear", "sum"):
            return aff.image(node.attrs["map"], self.value(node.args[0]))
        return self.bound(node)

    def bound(self, node: Node) -> Affine:
        """A new unknown s with node ≤ s; one for each function, however often it occurs."""
        known = self.scope.bounds.get(id(node))
        if known is not None:
            return known[1]
        plain = _of_data(node, self.origin)
        if plain is not None:
            return self.value(plain)
        s = self.scope.fresh("s", node.shape)
        self.scope.bounds[id(node)] = (node, s)
        if not self.known(node, s):
            flat = self.flat(node)
            if flat is node or not self.known(flat, s):
                self.below(flat, s)
        return s

    def known(self, node: Node, bound: Affine) -> bool:
        """Whether some atom is the set node ≤ bound; its term is kept."""
        term = set_term(Node("leq", (node, affine_node(bound, "s")), node.shape, node.text), self.origin)
        if term is not None:
            self.terms.append(term)
        return term is not None

    def flat(self, node: Node) -> Node:
        """The same function with bounds in place of the functions in its arguments."""
        if all(a.affine is not None or a.param is not None for a in node.args):
            return node
        args = []
        for a in node.args:
            leaf = a.affine is not None or a.param is not None
            args.append(a if leaf else affine_node(self.value(a), a.text))
        return Node(node.op, tuple(args), node.shape, node.text, node.attrs)

    def below(self, flat: Node, bound: Affine) -> None:
        """The cone terms of flat ≤ bound, for a function of affine arguments."""
        at = CONSTANT_ARGUMENTS.get(flat.op)
        data = flat.args[at].param if at is not None else None
        if at is not None and not isinstance(data, Const):
            raise self.refused(flat, f"argument {at} of {flat.op} depends on a parameter inside another function")
        args = tuple(a for i, a in enumerate(flat.args) if i != at)
        constant = data.dense() if isinstance(data, Const) else None
        built = rebuild(Node(flat.op, args, flat.shape, flat.text, flat.attrs), constant)
        if built is None or not built[0].is_convex():
            raise self.refused(flat, f"CVXPY has no cone form of {flat.op}")
        self._add(epigraph(*built), bound, [as_affine(a) for a in args])

    def constraint(self, constraint: Any, args: list[Affine]) -> tuple[Term, ...]:
        """A cone of matrices or quadratures that only CVXPY takes apart, of affine arguments."""
        plain = [cp.Variable(a.shape) for a in constraint.args]
        pairs = zip(plain, constraint.args, strict=True)
        known = [symmetric_wrap(v) if v.ndim == 2 and a.is_symmetric() else v for v, a in pairs]
        copy = type(constraint)(*known, *constraint.get_data()[:-1])  # its identity comes last
        self._add(cone_form([copy], plain), None, args)
        return tuple(self.terms)

    def _add(self, form: ConeForm, bound: Affine | None, args: list[Affine]) -> None:
        auxiliary = self.scope.fresh("s", (form.count,)) if form.count else None
        self.terms.extend(self._term(rows, bound, args, auxiliary) for rows in form.rows)

    def _term(self, rows: ConeRows, bound: Affine | None, args: list[Affine], auxiliary: Affine | None) -> Term:
        total = [aff.of_param(act.spread(const(np.reshape(rows.offset, rows.shape)), rows.shape))]
        inputs = list(zip(rows.arguments, args, strict=True))
        if bound is not None:
            inputs.append((rows.bound, bound))
        if auxiliary is not None:
            inputs.append((rows.auxiliary, auxiliary))
        for matrix, x in inputs:
            m = structured(matrix, x.shape, rows.shape)
            if m is not None:
                total.append(aff.image(m, x))
        if rows.atom == "pow_cone_nd":
            assert rows.alpha is not None, "power cones have exponents"
            return power_tree(aff.add(*total), const(rows.alpha), self.scope, self.origin)[0]
        data = EMPTY if rows.alpha is None else FrozenDict(alpha=const(rows.alpha))
        return Term(rows.atom, aff.add(*total), self.origin, data=data)

    def refused(self, node: Node, why: str) -> UnsupportedError:
        """The error of the few expressions that no route covers."""
        fix = f'give "{node.text}" its own term in the objective, or write the parameter as a number'
        return UnsupportedError(message(why, "a function of affine arguments and constant data", fix, self.origin))


def _sum_of_squares(node: Node) -> Node | None:
    """Σ v² as one function, so that it takes one second-order cone."""
    if node.op != "sum" or node.args[0].op != "square":
        return None
    one = Node("param", (), (), "1", param=const(1.0))
    attrs = FrozenDict(axes=node.attrs["axes"], keepdims=node.attrs["keepdims"])
    return Node("quad_over_lin", (node.args[0].args[0], one), node.shape, node.text, attrs)


def _of_data(node: Node, origin: Origin) -> Node | None:
    """A function with a datum, by one without: huber(x, M) = M² huber(x/M), xᵀPx = ‖Bx‖² with P = BᵀB."""
    if node.op == "huber" and node.args[1].param is not None:
        x, m = node.args[0], node.args[1].param
        if isinstance(m, Const) and (m.dense() == 1.0).all():
            return None
        unit = image(diagonal(reciprocal(m), node.shape), x)
        one = Node("param", (), node.shape, "1", param=act.spread(const(1.0), node.shape))
        return image(diagonal(multiply(m, m), node.shape), Node("huber", (unit, one), node.shape, node.text))
    return squares_of_form(node, origin)
