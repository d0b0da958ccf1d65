"""Two doors for existing users of CVXPY: `problem.solve(method="OPTEQ")` and cvxpylayers' `CvxpyLayer`."""

from opteq_cvx.bridge.cvxpy_layer import CvxpyLayer
from opteq_cvx.bridge.register import METHOD, register

__all__ = ["METHOD", "CvxpyLayer", "register"]
