"""Options of a compiled layer: frozen, keyword-only, saved with it."""

from dataclasses import dataclass, field
from typing import Literal

import torch

from opteq_cvx.adjoint import AdjointMode, Implicit
from opteq_cvx.coupling import HSIC
from opteq_cvx.errors import InputError, message
from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.iterate import Iteration
from opteq_cvx.selection import SecondStage
from opteq_cvx.splitting.asked import SplittingChoice
from opteq_cvx.splitting.choice import SplittingName

OnFailure = Literal["best", "nan", "raise"]
DEFAULT_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Options(Frozen):
    """How a layer solves and differentiates.

    tolerance: bound on the estimated relative distance to the fixed point; None: 1e-6 in float64, 1e-4 in float32.
    max_steps: iterations before a sample is given up with status MAX_STEPS.
    iteration: how the map is driven; None chooses: tuned momentum for proximal-gradient maps (forward–backward), plain
        steps where a contraction factor of at most 0.95 is certified for every sample, safeguarded Anderson otherwise.
    on_failure: "best" returns a failed sample's best iterate, "nan" NaN, "raise" raises SolveError.
    gradient_tolerance: a GradientWarning is given where a gradient's estimated relative error exceeds it; None: a
        thousand times the tolerance (the estimate is meant as an order of magnitude).
    splitting: which splitting the plan takes; None lets it choose.
    certify: whether ties without a certificate are refused, and samples whose margin is negative fail as not convex.
    select: the objective that chooses among several solutions, read beside the program; None: any of them.
    coupling: a prior that couples the samples of a batch, in training; not convex, not certified.
    """

    tolerance: float | None = None
    max_steps: int = 10_000
    iteration: Iteration | None = None
    adjoint: AdjointMode = field(default_factory=Implicit)
    on_failure: OnFailure = "best"
    gradient_tolerance: float | None = None
    certify: bool = True
    splitting: SplittingName | SplittingChoice | None = None
    select: SecondStage | None = None
    coupling: HSIC | None = None

    def __post_init__(self) -> None:
        if self.tolerance is not None and not 0 < self.tolerance < 1:
            raise InputError(message(f"tolerance={self.tolerance}", "a number in (0, 1)", "pass e.g. tolerance=1e-6"))
        if self.max_steps < 1:
            raise InputError(message(f"max_steps={self.max_steps}", "a positive integer", "pass e.g. max_steps=1000"))
        if self.on_failure not in ("best", "nan", "raise"):
            raise InputError(
                message(f"on_failure={self.on_failure!r}", '"best", "nan" or "raise"', 'leave it out for "best"')
            )

    def tolerance_for(self, dtype: torch.dtype) -> float:
        """The tolerance in force for a dtype."""
        return self.tolerance if self.tolerance is not None else DEFAULT_TOLERANCE.get(dtype, 1e-2)

    def gradient_limit(self, tolerance: float) -> float:
        """The estimate of a gradient's error from which a warning is given, for a solve to `tolerance`."""
        return max(1e3 * tolerance, 1e-9) if self.gradient_tolerance is None else self.gradient_tolerance
