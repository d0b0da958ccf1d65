"""Status: how the solve of one sample ended. The value of each member is its message, with the remedy."""

from enum import Enum


class Status(Enum):
    """One per sample; never raises by default."""

    CONVERGED = "residual below tolerance"
    MAX_STEPS = (
        "max_steps reached with the residual above tolerance; raise max_steps, loosen tolerance, or scale the problem"
    )
    NOT_CONVEX = (
        "a quadratic form is indefinite or a weight is negative at these values; "
        "bound it by construction (norm=, PSD=True, nonneg=True)"
    )
    PRIMAL_INFEASIBLE = "no point satisfies the constraints at these values; check bounds and right-hand sides"
    DUAL_INFEASIBLE = "the objective is unbounded below at these values; add a bound or a strongly convex term"
    DIVERGED = "the iterates left every bounded set; check the scale of weights and inputs"
    NON_FINITE_INPUT = "the input or a weight holds NaN or infinity for this sample; clean the data"
    INVALID_INPUT = "an input violates its declared attribute (nonneg, PSD, bounds); fix the data or the declaration"


CODES: tuple[Status, ...] = tuple(Status)
"""Statuses by integer code, as they lie in tensors: `CODES[int(code)]`."""


def code(status: Status) -> int:
    """The integer that stands for `status` in a tensor."""
    return CODES.index(status)
