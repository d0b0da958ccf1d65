"""tr XᵀP⁻¹X for P of parameters and constants: the squares of L⁻¹X, P = LLᵀ. With a variable P it keeps its cones."""

import numpy as np

from opteq_cvx.errors import NotConvexError, message
from opteq_cvx.frontend.nodes import affine_node, image
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.affine_shapes import summing
from opteq_cvx.ir.linmap import LeftMul
from opteq_cvx.ir.param import Apply, Const, ParamExpr, const
from opteq_cvx.ir.tree import Node


def squares_of_fraction(x: Node, p: Node, words: str) -> Node:
    """The node of `matrix_frac(x, p)`.

    Raises:
        NotConvexError: a constant P is not positive definite.
    """
    if p.param is None or x.affine is None:
        return Node("matrix_frac", (x, p), (), words)
    u = affine_node(aff.image(LeftMul(_inverse_factor(p.param, words), x.shape), x.affine), words)
    return image(summing(u.shape, None), Node("square", (u,), u.shape, words), words)


def _inverse_factor(p: ParamExpr, words: str) -> ParamExpr:
    """L⁻¹ with LLᵀ = P, L lower triangular."""
    if not isinstance(p, Const):
        return Apply("inverse_factor", (p,), p.shape)
    try:
        return const(np.linalg.inv(np.linalg.cholesky((p.dense() + p.dense().T) / 2)))
    except np.linalg.LinAlgError:
        found = f'the matrix of "{words}" is not positive definite'
        raise NotConvexError(message(found, "a positive definite matrix", "project it first")) from None
