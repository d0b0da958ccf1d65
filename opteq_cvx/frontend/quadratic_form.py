"""xᵀPx for P ⪰ 0 of parameters and constants: the squares of Bx, P = BᵀB."""

from opteq_cvx.frontend.factor import factor
from opteq_cvx.frontend.nodes import affine_node, image
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.affine_shapes import summing
from opteq_cvx.ir.linmap import LeftMul
from opteq_cvx.ir.program import Origin
from opteq_cvx.ir.tree import Node


def squares_of_form(node: Node, origin: Origin) -> Node | None:
    """The node of `quad_form(x, P)` as a sum of squares; None where it is something else.

    Raises:
        NotConvexError: a constant P has a negative eigenvalue.
    """
    if node.op != "quad_form" or node.args[1].param is None or node.args[0].affine is None:
        return None
    b = factor(node.args[1].param, origin)
    x = affine_node(aff.image(LeftMul(b, node.args[0].shape), node.args[0].affine), node.text)
    squares = Node("square", (x,), x.shape, node.text)
    return image(summing(squares.shape, None), squares, node.text)
