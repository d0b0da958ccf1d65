"""What an exact solve answers: a status, the solution, and its conic form."""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from opteq_cvx.ir.frozen import Array
from opteq_cvx.verify.polish import ConicData, ConicPoint


class ExactStatus(Enum):
    """How the exact solve of one sample ended; the value is its message."""

    OPTIMAL = "optimal"
    INACCURATE = "solved, but short of 1e-8"
    NOT_CONVEX = "a wrapped matrix or quadratic form is not what it claims"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    INVALID = "a value does not fit its parameter"
    FAILED = "the exact solver failed"

    @property
    def solved(self) -> bool:
        """Whether there is a solution to compare with."""
        return self in (ExactStatus.OPTIMAL, ExactStatus.INACCURATE)


@dataclass(frozen=True, slots=True)
class Exact:
    """An exact solution; arrays are empty tuples unless `status.solved`.

    Attributes:
        outputs: The values of the asked expressions.
        objective: The optimal value in the user's own sense (a maximum for Maximize).
        variables: The values of the problem's variables, in `problem.variables()` order.
        duals: One tuple of arrays per constraint, as CVXPY's `dual_value`s.
        residual: The largest relative violation of the optimality conditions of the conic form.
        tolerance: Clarabel's tolerances of the accepted solve.
        polished: Whether Newton steps on the active set improved it.
        note: What went wrong, for people.
        margin: Of a two-stage solve: the smallest multiplier that counts as positive, relative to the largest.
        conic: The conic form and its solution, with the columns of each output (for `verify.face`).
    """

    status: ExactStatus
    outputs: tuple[Array, ...] = ()
    objective: float = np.nan
    variables: tuple[Array, ...] = ()
    duals: tuple[tuple[Array, ...], ...] = ()
    residual: float = np.nan
    tolerance: float = np.nan
    polished: bool = False
    note: str = ""
    conic: "Conic | None" = None
    margin: float = np.nan


@dataclass(frozen=True, slots=True)
class Conic:
    """The conic form of one exact solve; output k lies in x[columns[k]], in Fortran order."""

    data: ConicData
    point: ConicPoint
    columns: tuple[slice, ...]
