"""Declaration: the user's own CVXPY objects behind a compiled layer. Shared by copies, dropped on save."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
from typing_extensions import override


@dataclass(frozen=True, slots=True, eq=False)
class Declaration:
    """The problems as the user wrote them (one, or several tied together), and what belongs to them.

    Inputs are in positional order, weights by name, ties as pairs of a parameter and its value.
    """

    problems: tuple[cp.Problem, ...]
    inputs: tuple[cp.Parameter, ...]
    weights: Mapping[str, cp.Parameter]
    outputs: tuple[cp.Expression, ...]
    ties: tuple[tuple[cp.Parameter, cp.Expression], ...] = ()
    select: cp.Minimize | cp.Maximize | None = None

    @property
    def problem(self) -> cp.Problem:
        """The only problem, or the first."""
        return self.problems[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Declaration":
        return self

    @override
    def __repr__(self) -> str:
        return f"Declaration({', '.join(str(p.objective) for p in self.problems)})"
