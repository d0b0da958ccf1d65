"""Selection: which of many solutions a layer returns, as data. The second objective, and how its minimizer is found.

u* = argmin {ω(u) : u ∈ argmin F}. The program that is solved is F + εω + ½ρ‖u‖², ε and ρ parameters of their own: its
solution u(ε) tends to u* along a smooth path, from which u* is extrapolated.
"""

from dataclasses import dataclass

from opteq_cvx.errors import InputError, message
from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.ir.program import Program
from opteq_cvx.iterate.averaging import AveragingMethod

EPSILON, RIDGE = "@epsilon", "@ridge"
"""The names of ε and ρ among the parameters of the combined program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Solve F + εω at ε, ε/2, ε/4, ε/8 and extrapolate to ε = 0; ε shrinks until two extrapolations agree.

    Any splitting. With the face of u* reached, u(ε) is analytic in ε, and what remains is O(ε⁴). Linear programs: exact
    below a threshold of ε.

    Args:
        epsilon: the first ε, relative to the largest curvatures of F and ω; None chooses by dtype.

    Source: Tikhonov 1963; Mangasarian, Meyer, *Nonlinear perturbation of linear programs*, 1979; extrapolation:
    Richardson 1911; Fiacco, McCormick, *Nonlinear Programming*, 1968, section 5.
    """

    epsilon: float | None = None

    def __post_init__(self) -> None:
        if self.epsilon is not None and not 0 < self.epsilon < 1:
            raise InputError(
                message(
                    f"Path(epsilon={self.epsilon})", "a number in (0, 1)", "leave it out, or pass e.g. epsilon=1e-4"
                )
            )


SelectionMethod = Path | AveragingMethod


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SecondStage(Frozen):
    """The combined program F + εω (+ ½ρ‖u‖² unless ω is `strong`), the text of ω, and the method.

    summand: the place of εω among the summands of the objective: terms that come from it are ω's.
    strong: ω is strongly convex by its form, so that the selected point is unique.
    """

    program: Program
    text: str
    summand: int
    strong: bool
    method: SelectionMethod
