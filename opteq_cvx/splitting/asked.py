"""Splittings that a user asks for, and what may be set of each: `oc.compile(..., splitting=oc.DouglasRachford(rho=1))`.

The defaults are what the plan uses when it chooses; a name ("douglas-rachford") stands for its class with defaults.
"""

import math
from abc import ABC
from dataclasses import dataclass, fields
from typing import ClassVar

from opteq_cvx.errors import CompileError, InputError, message
from opteq_cvx.splitting.choice import NAMES, SplittingName


@dataclass(frozen=True, slots=True, kw_only=True)
class SplittingChoice(ABC):
    """One of the splittings below."""

    name: ClassVar[SplittingName]

    @property
    def changed(self) -> str:
        """What differs from the defaults, in words; empty where nothing does."""
        own = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        return ", ".join(f"{name}={value}" for name, value, default in own if value != default)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedForm(SplittingChoice):
    """One prox, no iteration."""

    name: ClassVar[SplittingName] = "closed-form"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardBackward(SplittingChoice):
    """u⁺ = prox_{γf}(u − γ(Pu + q)), γ = 1/L with a certified L; momentum and its options are those of `iteration=`.

    Source: Bauschke & Combettes, *Convex Analysis and Monotone Operator Theory*, section 28.5.
    """

    name: ClassVar[SplittingName] = "forward-backward"


@dataclass(frozen=True, slots=True, kw_only=True)
class DouglasRachford(SplittingChoice):
    """ADMM on w = Kx + b in the metric R.

    Args:
        relaxation: α in (0, 2); 1 is Douglas–Rachford itself, 2 would be Peaceman–Rachford.
        rho: > 0, R at the start relative to the equilibrated problem, of rows that are not equalities.
        adaptive: R is rebalanced, sample by sample, by the ratio of primal and dual residuals.
        newton: finish with semismooth Newton steps on the augmented Lagrangian, where proxes have cheap Jacobians.

    Raises:
        InputError: a number out of its range.

    Source: Stellato et al., *OSQP*, Math. Prog. Comp. 12 (2020), sections 3 and 5.
    """

    name: ClassVar[SplittingName] = "douglas-rachford"
    relaxation: float = 1.6
    rho: float = 0.1
    adaptive: bool = True
    newton: bool = True

    def __post_init__(self) -> None:
        _within("relaxation", self.relaxation, 2.0)
        _within("rho", self.rho, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class DavisYin(SplittingChoice):
    """Two groups of proxes and a gradient step; no linear system.

    Args:
        relaxation: λ as a share, in (0, 1), of its bound 2 − γL/2.
        adaptive: γ follows the sizes of the point and its multipliers, never above 1/L.
        newton: finish with semismooth Newton steps where the program is small.

    Raises:
        InputError: a number out of its range.

    Source: Davis, Yin, *A three-operator splitting scheme*, Set-Valued Var. Anal. 25 (2017), theorem 2.1.
    """

    name: ClassVar[SplittingName] = "davis-yin"
    relaxation: float = 0.8
    adaptive: bool = True
    newton: bool = True

    def __post_init__(self) -> None:
        _within("relaxation", self.relaxation, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PDHG(SplittingChoice):
    """Products with K and its transpose only, diagonally preconditioned.

    Args:
        primal_weight: ω > 0 at the start: dual steps are multiplied by it, primal steps divided.
        adaptive: ω is rebalanced, sample by sample, by the ratio of primal and dual residuals.

    Raises:
        InputError: a number out of its range.

    Source: Pock, Chambolle, ICCV 2011; Applegate et al., *PDLP*, arXiv 2106.04756, section 3.
    """

    name: ClassVar[SplittingName] = "primal-dual"
    primal_weight: float = 1.0
    adaptive: bool = True

    def __post_init__(self) -> None:
        _within("primal_weight", self.primal_weight, math.inf)


CHOICES: dict[str, type[SplittingChoice]] = {
    c.name: c for c in (ClosedForm, ForwardBackward, DavisYin, DouglasRachford, PDHG)
}


def choice(asked: str | SplittingChoice | None) -> SplittingChoice | None:
    """What was asked for, a name as the class it stands for.

    Raises:
        CompileError: no splitting has this name, or the value is something else.
    """
    if asked is None or isinstance(asked, SplittingChoice):
        return asked
    made = CHOICES.get(asked)
    if made is None:
        expected = f"one of {', '.join(NAMES)}, or e.g. oc.DouglasRachford(rho=1.0)"
        raise CompileError(message(f"splitting={asked!r}", expected, "leave it out to let the plan choose"))
    return made()


def _within(name: str, value: float, high: float) -> None:
    if not (math.isfinite(value) and 0.0 < value < high):
        between = "a positive number" if high == math.inf else f"a number in (0, {high:g})"
        raise InputError(message(f"{name}={value}", between, "correct it or leave it out"))
