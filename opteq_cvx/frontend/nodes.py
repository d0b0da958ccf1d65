"""Nodes made of nodes: leaves, linear maps, negatives and sums, which leaves take in."""

from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.affine_shapes import broadcasting, promoting
from opteq_cvx.ir.frozen import FrozenDict, Shape, size
from opteq_cvx.ir.linmap import Identity, LinearMap, Sum, compose
from opteq_cvx.ir.param import ParamExpr, neg
from opteq_cvx.ir.program import Affine
from opteq_cvx.ir.tree import Node


def param_node(p: ParamExpr, words: str) -> Node:
    """A leaf of parameters only."""
    return Node("param", (), p.shape, words, param=p)


def affine_node(x: Affine, words: str) -> Node:
    """A leaf affine in the variables."""
    return Node("affine", (), x.shape, words, affine=x)


def image(m: LinearMap, node: Node, words: str | None = None) -> Node:
    """A linear map of a node; leaves take it in."""
    words = node.text if words is None else words
    if isinstance(m, Identity):
        return node
    if node.affine is not None:
        return affine_node(aff.image(m, node.affine), words)
    if node.param is not None:
        return param_node(act.apply(m, node.param), words)
    if node.op == "linear":
        m, node = compose(m, node.attrs["map"]), node.args[0]
    if isinstance(m, Sum):
        axes = tuple(a - len(node.shape) for a in m.axes)
        return Node("sum", (node,), m.shape_out, words, FrozenDict(axes=axes, keepdims=m.keepdims, map=m))
    return Node("linear", (node,), m.shape_out, words, FrozenDict(map=m))


def negative(node: Node, words: str | None = None) -> Node:
    """−node; a double negation disappears."""
    words = node.text if words is None else words
    if node.op == "neg":
        return node.args[0]
    if node.affine is not None:
        return affine_node(aff.negative(node.affine), words)
    if node.param is not None:
        return param_node(neg(node.param), words)
    return Node("neg", (node,), node.shape, words)


def total(nodes: tuple[Node, ...], words: str) -> Node:
    """The sum of nodes of one shape; leaves merge into one."""
    plain = [n for n in nodes if n.affine is not None or n.param is not None]
    rest = [n for n in nodes if n.affine is None and n.param is None]
    if len(plain) > 1 or (plain and not rest):
        merged = aff.add(*(as_affine(n) for n in plain))
        leaf = affine_node(merged, words) if merged.parts else param_node(merged.offset, words)
        rest.append(leaf)
    else:
        rest.extend(plain)
    return rest[0] if len(rest) == 1 else Node("add", tuple(rest), rest[0].shape, words)


def as_affine(node: Node) -> Affine:
    """A leaf as an affine expression."""
    if node.param is not None:
        return aff.of_param(node.param)
    assert node.affine is not None, "only leaves are affine"
    return node.affine


def same_shape(node: Node, shape: Shape) -> Node:
    """A node broadcast to `shape`."""
    if node.shape == shape:
        return node
    m = promoting(node.shape, shape) if size(node.shape) == 1 else broadcasting(node.shape, shape)
    return image(m, node)
