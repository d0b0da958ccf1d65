"""The perspective s·f(x/s), s ≥ 0, of a function that CVXPY composed, by rules for its pieces.

It is linear in f; A x + b becomes A x + b·s; a homogeneous function keeps its form; ‖u‖² becomes ‖u‖²/s, −ln u the
relative entropy s·ln(s/u), and u·ln u the relative entropy u·ln(u/s). Other functions keep CVXPY's own cone form.
Source: Combettes, *Perspective functions: properties, constructions, and examples*, 2018, section 2.
"""

from opteq_cvx.frontend.nodes import affine_node, image, negative, total
from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.affine_shapes import promoting, reshaping
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.linmap import diagonal
from opteq_cvx.ir.program import Affine
from opteq_cvx.ir.tree import Node

HOMOGENEOUS = frozenset(
    {
        "abs",
        "lambda_max",
        "lambda_sum_largest",
        "max",
        "neg_geo_mean",
        "neg_pnorm",
        "norm2",
        "norm_inf",
        "norm_nuc",
        "pnorm",
        "pos",
        "sigma_max",
        "sum_largest",
    }
)
"""Operations of one argument with f(s·x) = s·f(x) for s ≥ 0."""


def perspective_of(f: Node, s: Affine, words: str) -> Node | None:
    """s·f(x/s) for the variables x of f; None where a piece of f has no rule."""
    if f.param is not None:
        return affine_node(_scaled(Affine((), f.param), s), words)
    if f.affine is not None:
        return affine_node(_scaled(f.affine, s), words)
    squares = _sum_of_squares(f)
    if squares is not None:
        u = aff.image(reshaping(squares.shape, squares.shape or (1,)), _scaled(squares, s))
        axes = tuple(range(-len(u.shape), 0))
        args = (affine_node(u, words), affine_node(aff.image(reshaping(s.shape, ()), s), "s"))
        return Node("quad_over_lin", args, f.shape, words, FrozenDict(axes=axes, keepdims=False))
    if f.op in ("add", "neg", "linear", "sum"):
        pieces = [perspective_of(a, s, words) for a in f.args]
        parts = tuple(p for p in pieces if p is not None)
        if len(parts) < len(pieces):
            return None
        if f.op == "add":
            return total(parts, words)
        return negative(parts[0], words) if f.op == "neg" else image(f.attrs["map"], parts[0], words)
    return _of_function(f, s, words)


def _of_function(f: Node, s: Affine, words: str) -> Node | None:
    x = f.args[0].affine
    if x is None:
        return None
    u = affine_node(_scaled(x, s), words)
    if f.op in HOMOGENEOUS:
        return Node(f.op, (u, *f.args[1:]), f.shape, words, f.attrs)
    if f.op not in ("neg_log", "neg_entr"):
        return None
    height = affine_node(aff.image(promoting(s.shape, f.shape), s), "s")
    return Node("rel_entr", (height, u) if f.op == "neg_log" else (u, height), f.shape, words)


def _scaled(x: Affine, s: Affine) -> Affine:
    """A x + b·s."""
    moved = aff.image(diagonal(x.offset, x.shape), aff.image(promoting(s.shape, x.shape), s))
    return aff.add(Affine(x.parts, act.zeros(x.shape)), moved)


def _sum_of_squares(f: Node) -> Affine | None:
    """u where f is the sum of all entries of u², or u² of one entry."""
    square = f.args[0] if f.op == "sum" and f.shape == () else f
    return square.args[0].affine if square.op == "square" and f.shape == () else None
