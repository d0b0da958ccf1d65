"""A factor B of a positive semidefinite matrix P = BᵀB, so that xᵀPx = ‖Bx‖² can enter a second-order cone."""

import numpy as np

from opteq_cvx.errors import NotConvexError, message
from opteq_cvx.ir import act
from opteq_cvx.ir.param import Apply, Const, ParamExpr, const
from opteq_cvx.ir.program import Origin

SMALLEST = 1e-12
"""Eigenvalues below this share of the largest one count as zero."""


def factor(p: ParamExpr, origin: Origin) -> ParamExpr:
    """B with BᵀB = P: from the eigenvalues of a constant, the declared factor of G @ G.T, else by Cholesky.

    Raises:
        NotConvexError: a constant P has a negative eigenvalue.
    """
    if isinstance(p, Const):
        values, vectors = np.linalg.eigh((p.dense() + p.dense().T) / 2)
        top = float(np.abs(values).max(initial=0.0))
        if (values < -SMALLEST * max(top, 1.0)).any():
            found = f"the matrix of a quadratic form has the eigenvalue {values.min():.3g}"
            raise NotConvexError(message(found, "a positive semidefinite matrix", "project it first", origin))
        kept = values > SMALLEST * top
        return const(np.sqrt(values[kept])[:, None] * vectors[:, kept].T)
    if isinstance(p, Apply) and p.op == "matmul":
        left, right = p.args
        if isinstance(right, Apply) and right.op == "transpose" and right.args[0] is left and len(left.shape) == 2:
            return right
        if isinstance(left, Apply) and left.op == "transpose" and left.args[0] is right and len(right.shape) == 2:
            return right
    return act.transpose(Apply("cholesky", (p,), p.shape))
