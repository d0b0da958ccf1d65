"""Selecting: a problem together with the objective that chooses among its solutions."""

from dataclasses import dataclass

import cvxpy as cp


@dataclass(frozen=True, slots=True, eq=False)
class Selecting:
    """argmin {ω(u) : u ∈ argmin F}: `oc.compile(Selecting(problem, select))` is `oc.compile(problem, select=select)`.

    Attributes:
        problem: F.
        select: ω, as `cp.Minimize` or `cp.Maximize`, in variables of the problem.
    """

    problem: cp.Problem
    select: cp.Minimize | cp.Maximize

    def parameters(self) -> list[cp.Parameter]:
        """The parameters of both objectives, each once."""
        found = {id(p): p for source in (self.problem, self.select) for p in source.parameters()}
        return list(found.values())

    def is_dcp(self) -> bool:
        """Whether both stages follow the DCP rules."""
        return bool(self.problem.is_dcp() and self.select.is_dcp())
