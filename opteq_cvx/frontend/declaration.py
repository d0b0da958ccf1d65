"""Declaration: the user's own CVXPY objects behind a compiled layer. Shared by copies, dropped on save."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
from typing_extensions import override


@dataclass(frozen=True, slots=True, eq=False)
class Declaration:
    """The problem as the user wrote it, its inputs in positional order, its weights by name, its outputs."""

    problem: cp.Problem
    inputs: tuple[cp.Parameter, ...]
    weights: Mapping[str, cp.Parameter]
    outputs: tuple[cp.Expression, ...]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Declaration":
        return self

    @override
    def __repr__(self) -> str:
        return f"Declaration({self.problem.objective})"
