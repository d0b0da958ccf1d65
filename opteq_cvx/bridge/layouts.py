"""Dual values in the layouts that `save_dual_value` of each of CVXPY's constraints expects."""

from typing import Any

import numpy as np
from cvxpy.constraints.exponential import ExpCone
from cvxpy.constraints.power import PowCone3D, PowConeND
from cvxpy.constraints.second_order import SOC
from torch import Tensor

from opteq_cvx.ir.frozen import Array


def unpackable(constraint: Any, duals: tuple[Tensor, ...]) -> Array:
    """The dual variables of one constraint of one sample, as CVXPY's solvers return them.

    A cone of second order: one row [t, x] for each; of exponentials: rows of three, elements in Fortran order; of
    powers: columns of three, or of all factors with z last.
    """
    parts = [d.detach().cpu().numpy() for d in duals]
    match constraint:
        case SOC():
            t, x = parts
            rows = x.reshape(1, -1) if x.ndim < 2 else (x.T if constraint.axis == 0 else x)
            return np.hstack([t.reshape(-1, 1), rows]).reshape(-1)
        case ExpCone():
            return np.stack([p.reshape(-1, order="F") for p in parts], axis=-1)
        case PowCone3D():
            return np.stack([p.reshape(-1, order="F") for p in parts])
        case PowConeND():
            w, z = parts
            columns = w.reshape(-1, 1) if w.ndim < 2 else (w if constraint.axis == 0 else w.T)
            return np.vstack([columns, z.reshape(1, -1)])
        case _:
            (value,) = parts
            return value.reshape(constraint.dual_variables[0].shape)
