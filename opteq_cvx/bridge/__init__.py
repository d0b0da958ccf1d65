"""Doors for users of CVXPY: `problem.solve(method="OPTEQ")`, cvxpylayers' `CvxpyLayer`, any solver as a layer."""

from opteq_cvx.bridge.black_box import BlackBoxLayer
from opteq_cvx.bridge.cvxpy_layer import CvxpyLayer
from opteq_cvx.bridge.register import METHOD, register

__all__ = ["METHOD", "BlackBoxLayer", "CvxpyLayer", "register"]
