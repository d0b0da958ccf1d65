"""CVXPY expressions as Nodes: few spellings, convex operations only.

Sums of elementwise convex functions become `sum` of the elementwise function, concave functions the
negative of a convex one, linear operations on what is not affine keep their map. Reducing operations carry
`axes`, the reduced axes of their argument as negative numbers, and `keepdims`; elementwise operations get
arguments of one shape.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np

from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.frontend import activations
from opteq_cvx.frontend.affine import affine, maps_of
from opteq_cvx.frontend.hoist import hoist
from opteq_cvx.frontend.matrix_fraction import squares_of_fraction
from opteq_cvx.frontend.names import Attrs, arguments, entry, hidden, is_linear_atom
from opteq_cvx.frontend.nodes import affine_node, as_affine, image, negative, param_node, same_shape, total
from opteq_cvx.frontend.perspective import perspective_of
from opteq_cvx.frontend.scope import Scope, text
from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.affine_products import reciprocal
from opteq_cvx.ir.affine_shapes import reduced, reshaping, summing
from opteq_cvx.ir.frozen import FrozenDict, Shape, size
from opteq_cvx.ir.linmap import diagonal, gather
from opteq_cvx.ir.param import const, is_zero
from opteq_cvx.ir.tree import Node


def tree(expr: cp.Expression, scope: Scope) -> Node:
    """The Node of an expression.

    Raises:
        UnsupportedError: complex values, or a function that CVXPY does not ship.
    """
    return scope.nodes.of(expr, lambda: _tree(expr, scope))


def _tree(expr: cp.Expression, scope: Scope) -> Node:
    words = text(expr)
    if not scope.has_variables(expr):
        return param_node(hoist(expr, scope), words)
    if scope.is_linear(expr):
        return _known(affine_node(affine(expr, scope), words), expr)
    row = entry(expr)
    if row is None and not is_linear_atom(expr):
        found = f"the function {type(expr).__name__} is not one of CVXPY's"
        raise UnsupportedError(message(found, "a function of CVXPY", "write it with CVXPY's functions", f'"{words}"'))
    if row is not None and row.op == "perspective":
        known = _perspective(expr, scope, words)
        if known is not None:
            return known
    if row is not None and row.op in NORMALIZE:
        args = tuple(tree(a, scope) for a in (*arguments(expr), *hidden(expr)))
        return NORMALIZE[row.op](args, expr.shape, words, row.attrs(expr), expr)
    if is_linear_atom(expr):
        return _linear(expr, scope, words)
    assert row is not None, "classes outside the table were refused above"
    args = tuple(tree(a, scope) for a in (*arguments(expr), *hidden(expr)))
    return Node(row.op, args, expr.shape, words, FrozenDict(row.attrs(expr)))


def _perspective(expr: Any, scope: Scope, words: str) -> Node | None:
    """s·f(x/s) as a function of x and s that atoms know; parameters inside f stay with CVXPY."""
    if expr.f.parameters() or not expr.f.variables():
        return None
    return perspective_of(tree(expr.f, scope), affine(expr.args[0], scope), words)


# --- leaves and linear operations ----------------------------------------------------------------------


def _known(node: Node, expr: cp.Expression) -> Node:
    """An affine leaf with what CVXPY knows of it and the conic route can use."""
    square = len(node.shape) == 2 and node.shape[0] == node.shape[1] > 1
    known = square and (expr.is_symmetric() or expr.is_hermitian())
    return replace(node, attrs=FrozenDict(symmetric=True)) if known else node


def _linear(expr: cp.Expression, scope: Scope, words: str) -> Node:
    row = entry(expr)
    if row is not None and row.op == "neg":
        return negative(tree(arguments(expr)[0], scope), words)
    pieces = [image(m, tree(arguments(expr)[i], scope), words) for i, m in maps_of(expr, scope)]
    return total(tuple(pieces), words)


# --- normalization: (arguments, shape, text, attributes, the CVXPY atom) → Node --------------------------

Normalize = Callable[[tuple[Node, ...], Shape, str, Attrs, Any], Node]


def elementwise(op: str) -> Normalize:
    """An elementwise convex function: its arguments all get the shape of the result."""

    def rule(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
        return Node(op, tuple(same_shape(a, shape) for a in args), shape, words, FrozenDict(attrs))

    return rule


def reducing(op: str) -> Normalize:
    """A convex function of the entries along some axes."""

    def rule(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
        x = args[0] if args[0].shape else image(reshaping((), (1,)), args[0])
        axes = tuple(a - len(x.shape) for a in reduced(attrs["axis"], len(x.shape)))
        more = {k: v for k, v in attrs.items() if k != "axis"}
        return Node(op, (x, *args[1:]), shape, words, FrozenDict(more, axes=axes))

    return rule


def whole(op: str) -> Normalize:
    """A convex function of the whole argument."""

    def rule(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
        return Node(op, args, shape, words, FrozenDict(attrs))

    return rule


def negated(inner: Normalize) -> Normalize:
    """A concave function, as the negative of a convex one."""

    def rule(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
        return negative(inner(args, shape, words, attrs, expr), words)

    return rule


def mirrored(inner: Normalize) -> Normalize:
    """f(x) = −g(−x): min and minimum."""

    def rule(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
        return negative(inner(tuple(negative(a) for a in args), shape, words, attrs, expr), words)

    return rule


def _norm1(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
    return _sum(_absolute(args[0], arguments(expr)[0]), attrs, words)


def _abs(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
    return _absolute(args[0], arguments(expr)[0])


def _absolute(x: Node, expr: cp.Expression) -> Node:
    """|x|, which is x itself for a convex x ≥ 0: a mixed norm is a sum of norms."""
    if x.affine is None and x.param is None and expr.is_nonneg():
        return x
    return Node("abs", (x,), x.shape, f"abs({x.text})")


def _maximum(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
    """Of affine pieces: max(a, b) = b + max(a − b, 0), of more the largest entry of a stack; else as it is."""
    args = tuple(same_shape(a, shape) for a in args)
    pieces = [as_affine(a) for a in args if a.affine is not None or a.param is not None]
    if len(pieces) < len(args) or len(args) < 2:
        return Node("maximum", args, shape, words, FrozenDict(attrs))
    if len(args) > 2:
        stacked = affine_node(aff.stack(pieces), words)
        return Node("max", (stacked,), shape, words, FrozenDict(axes=(-1,), keepdims=False))
    a, b = sorted(args, key=lambda node: node.param is not None)
    if b.param is not None and is_zero(b.param):
        return Node("pos", (a,), shape, words)
    gap = affine_node(aff.add(as_affine(a), aff.negative(as_affine(b))), f"{a.text} - {b.text}")
    return total((Node("pos", (gap,), shape, f"pos({gap.text})"), b), words)


def _activation(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
    """The function of an activation, plus ½x² where asked for."""
    (x,) = args
    weighted = activations.pieces(attrs["name"], x, negative(x), shape, words, attrs["options"])
    nodes = [image(diagonal(const(c), node.shape), node) for c, node in weighted]
    if attrs["half"]:
        square = Node("square", (x,), x.shape, f"square({x.text})")
        reduced_to = image(summing(x.shape, len(x.shape) - 1), square) if shape != x.shape else square
        nodes.append(image(diagonal(const(0.5), shape), reduced_to))
    return total(tuple(nodes), words)


def squared(x: Node) -> Node:
    """x², where ‖v‖₂² is the sum of v² and |v|² is v²."""
    if x.op == "norm2":
        v = x.args[0]
        return image(reshaping(summing(v.shape, x.attrs["axes"]).shape_out, x.shape), _sum_of_squares(v, x))
    inner = x.args[0] if x.op == "abs" else x
    return Node("square", (inner,), inner.shape, f"square({inner.text})")


def _sum_of_squares(v: Node, norm: Node) -> Node:
    squares = Node("square", (v,), v.shape, f"square({v.text})")
    return image(summing(v.shape, norm.attrs["axes"]), squares, f"square({norm.text})")


def _sum(node: Node, attrs: Attrs, words: str) -> Node:
    return image(summing(node.shape, attrs["axis"], attrs["keepdims"]), node, words)


def _quad_over_lin(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
    x, y = args
    if y.param is None:
        return reducing("quad_over_lin")((x, image(reshaping(y.shape, ()), y)), shape, words, attrs, expr)
    scale = diagonal(reciprocal(act.reshape(y.param, ())), shape)
    return image(scale, _sum(squared(x), attrs, words), words)


def _power(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
    p = attrs["p"]  # a parameter in its place is no DCP
    if p == 0:
        return param_node(act.spread(const(1.0), shape), words)
    if p == 1:
        return args[0]
    if p == 2:
        return squared(args[0])
    product = _inverse_product(args[0], p, shape, words)
    if product is not None:
        return product
    if 0 < p < 1:
        return negative(Node("neg_power", args, shape, words, FrozenDict(attrs)), words)
    return Node("power", args, shape, words, FrozenDict(attrs))


def _inverse_product(x: Node, p: float, shape: Shape, words: str) -> Node | None:
    """Π x_i^−w_i, which CVXPY writes as a power of a geometric mean: of one, or of the power of one."""
    mean = x.args[0] if x.op == "neg" else x
    exponent = -p if x.op == "neg" and mean.op == "neg_geo_mean" else p if mean.op == "inv_prod" and p > 1 else 0.0
    if exponent <= 0:
        return None
    attrs = FrozenDict(mean.attrs, p=tuple(exponent * w for w in mean.attrs["p"]))
    return Node("inv_prod", mean.args, shape, words, attrs)


def _pnorm(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
    if attrs["p"] == 2:
        rest = {k: v for k, v in attrs.items() if k != "p"}
        return reducing("norm2")(args, shape, words, rest, expr)
    if attrs["p"] < 1:
        return negative(reducing("neg_pnorm")(args, shape, words, attrs, expr), words)
    return reducing("pnorm")(args, shape, words, attrs, expr)


def _geo_mean(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
    """The weights follow CVXPY: over the reduced entries in Fortran order."""
    (positive,) = np.nonzero(attrs["p"])
    if positive.size == 1 and attrs["axis"] is None:  # one entry to the power one
        index = np.arange(size(args[0].shape)).reshape(args[0].shape).reshape(-1, order="F")[positive[0]]
        return image(gather(np.full(shape, index), args[0].shape), args[0], words)
    return negative(reducing("neg_geo_mean")(args, shape, words, attrs, expr), words)


def _log1p(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
    x, one = args[0], const(1.0)
    if x.affine is not None:
        moved = affine_node(aff.add(x.affine, aff.of_param(act.spread(one, shape))), f"1 + {x.text}")
    else:
        moved = Node("add", (x, param_node(act.spread(one, shape), "1")), shape, f"1 + {x.text}")
    return negative(Node("neg_log", (moved,), shape, words), words)


def _quad_form(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
    x, p = args
    if len(x.shape) == 2:
        x = image(reshaping(x.shape, (size(x.shape),)), x)
    if expr.is_atom_concave() and not expr.is_atom_convex():
        return negative(Node("quad_form", (x, negative(p)), shape, words), words)
    return Node("quad_form", (x, p), shape, words)


def _kept(args: tuple[Node, ...], shape: Shape, words: str, attrs: Attrs, expr: Any) -> Node:
    """A function with data of its own, as it is; a concave one as the negative of a convex one."""
    if expr.is_atom_convex():
        return Node("kept", args, shape, words, FrozenDict(attrs))
    return negative(Node("kept", args, shape, words, FrozenDict(attrs, negative=True)), words)


NORMALIZE: dict[str, Normalize] = {
    "activation": _activation,
    "abs": _abs,
    "cummax": lambda args, shape, words, attrs, expr: Node(
        "cummax",
        args,
        shape,
        words,
        FrozenDict(axis=attrs["axis"] - len(shape) if attrs["axis"] >= 0 else attrs["axis"]),
    ),
    "entr": negated(elementwise("neg_entr")),
    "exp": elementwise("exp"),
    "geo_mean": _geo_mean,
    "huber": elementwise("huber"),
    "kl_div": elementwise("kl_div"),
    "log": negated(elementwise("neg_log")),
    "log1p": _log1p,
    "log_det": negated(whole("neg_log_det")),
    "log_sum_exp": reducing("log_sum_exp"),
    "logistic": elementwise("logistic"),
    "matrix_frac": lambda args, shape, words, attrs, expr: squares_of_fraction(args[0], args[1], words),
    "max": reducing("max"),
    "maximum": _maximum,
    "min": mirrored(reducing("max")),
    "minimum": mirrored(_maximum),
    "norm1": _norm1,
    "norm_inf": reducing("norm_inf"),
    "perspective": _kept,
    "pnorm": _pnorm,
    "power": _power,
    "quad_form": _quad_form,
    "quad_over_lin": _quad_over_lin,
    "rel_entr": elementwise("rel_entr"),
    "sum_largest": reducing("sum_largest"),
    "suppfunc": _kept,
    "von_neumann_entr": negated(whole("neg_von_neumann_entr")),
    "xexp": elementwise("xexp"),
}
"""Rules by CVXPY's function; a convex function without one keeps its name and attributes."""
