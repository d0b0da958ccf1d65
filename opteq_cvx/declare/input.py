"""Input: data of a layer, one value per sample."""

from typing import Any

import cvxpy as cp

from opteq_cvx.declare.parameter import ShapeLike, declare


class Input(cp.Parameter):
    """A CVXPY parameter that becomes an argument of the compiled layer.

    Args:
        shape: of one sample, without batch axes.
        name: the keyword under which calls may pass it; used in messages and plans.
        attributes: CVXPY's (`nonneg`, `PSD`, `bounds`, ...), checked when data arrives.

    Raises:
        CompileError: attributes that CVXPY refuses, or complex ones.
    """

    def __init__(self, shape: ShapeLike = (), *, name: str | None = None, **attributes: Any) -> None:
        declare(self, "Input", shape, name, attributes)
