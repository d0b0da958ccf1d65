"""Tied programs as one declaration: what `compile` takes in place of a problem, and the common shapes of ties."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp

from opteq_cvx.errors import InputError, message


@dataclass(frozen=True, eq=False)
class Tied:
    """Programs, the ties between them, and the default outputs: `oc.compile(tied)`.

    Attributes:
        problems: convex programs without common variables.
        ties: parameters, and the affine expression of the variables that each has the value of.
        outputs: what a compiled layer returns by default.
    """

    problems: tuple[cp.Problem, ...]
    ties: Mapping[cp.Parameter, cp.Expression]
    outputs: tuple[cp.Expression, ...]

    def parameters(self) -> list[cp.Parameter]:
        """The parameters of all programs and ties that are not tied, each once."""
        found: dict[int, cp.Parameter] = {}
        for p in (p for source in (*self.problems, *self.ties.values()) for p in source.parameters()):
            found.setdefault(id(p), p)
        tied = {id(p) for p in self.ties}
        return [p for key, p in found.items() if key not in tied]

    def is_dcp(self) -> bool:
        """Whether every program follows the DCP rules."""
        return all(p.is_dcp() for p in self.problems)


def tied(
    problems: cp.Problem | Sequence[cp.Problem],
    ties: Mapping[cp.Parameter, cp.Expression],
    outputs: Iterable[cp.Expression] | None = None,
) -> Tied:
    """Bind parameters of convex programs to affine outputs of their solutions: an equilibrium.

    u solves every program while each tied parameter has the value that the tie gives it: a Nash equilibrium of the
    programs as players. Outputs are all variables by default.
    """
    found = (problems,) if isinstance(problems, cp.Problem) else tuple(problems)
    everything: list[Any] = [v for p in found for v in p.variables()]
    return Tied(found, dict(ties), tuple(everything if outputs is None else outputs))


def joined(programs: Sequence[Tied], ties: Mapping[cp.Parameter, cp.Expression], outputs: Sequence[Any]) -> Tied:
    """Several declarations with other ties in place of their own.

    Raises:
        InputError: there is none, or one occurs twice.
    """
    if not programs:
        raise InputError(message("no unit", "at least one", "pass oc.unit(...)s"))
    if len({id(p) for p in programs}) < len(programs):
        raise InputError(message("one unit twice", "units with variables of their own", "declare a second unit"))
    return Tied(tuple(p for t in programs for p in t.problems), dict(ties), tuple(outputs))
