"""Splittings that a user asks for, and what may be set of each: `oc.compile(..., splitting=oc.DouglasRachford(rho=1))`.

The defaults are what the plan uses when it chooses; a name ("douglas-rachford") stands for its class with defaults.
"""

import math
from abc import ABC
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

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
    """u⁺ = prox_{γf}(u − γ(Pu + q)), L ≥ λ_max(P) certified; momentum and its options are those of `iteration=`.

    Args:
        step: γL in (0, 1]; momentum, the default of `iteration=`, lengthens steps by itself.
        matrix: "dense" forms P, "factors" applies the factors it is declared by; None takes the cheaper one.
        newton: finish with Newton steps on the support of the prox's derivative, where they are cheaper.

    Raises:
        InputError: a value out of its range.

    Source: Bauschke & Combettes, *Convex Analysis and Monotone Operator Theory*, section 28.5.
    """

    name: ClassVar[SplittingName] = "forward-backward"
    step: float = 1.0
    matrix: Literal["dense", "factors"] | None = None
    newton: bool = True

    def __post_init__(self) -> None:
        _within("step", self.step, 1.0, closed=True)
        _one_of("matrix", self.matrix, ("dense", "factors", None))
        _one_of("newton", self.newton, (True, False))


@dataclass(frozen=True, slots=True, kw_only=True)
class DouglasRachford(SplittingChoice):
    """ADMM on w = Kx + b in the metric R.

    Args:
        relaxation: α in (0, 2); 1 is Douglas–Rachford itself, 2 would be Peaceman–Rachford.
        rho: > 0, R at the start relative to the equilibrated problem, of rows that are not equalities.
        sigma: > 0, the weight of the proximal term on x, relative to the equilibrated quadratic.
        scaling_rounds: ≥ 0, rounds of Ruiz equilibration of rows and columns.
        adaptive: R is rebalanced, sample by sample, by the ratio of primal and dual residuals.
        factor: "dense" is one factorization of an n × n matrix, "woodbury" a diagonal and the dense rows of P and K;
            None takes the cheaper one.
        newton: finish with semismooth Newton steps on the augmented Lagrangian, where proxes have cheap Jacobians, and
            where these do not suffice and all rows lie in intervals by an interior point method.

    Raises:
        InputError: a number out of its range.

    Source: Stellato et al., *OSQP*, Math. Prog. Comp. 12 (2020), sections 3 and 5.
    """

    name: ClassVar[SplittingName] = "douglas-rachford"
    relaxation: float = 1.6
    rho: float = 0.1
    sigma: float = 1e-6
    scaling_rounds: int = 10
    adaptive: bool = True
    factor: Literal["dense", "woodbury"] | None = None
    newton: bool = True

    def __post_init__(self) -> None:
        _within("relaxation", self.relaxation, 2.0)
        _within("rho", self.rho, math.inf)
        _within("sigma", self.sigma, math.inf)
        if not isinstance(self.scaling_rounds, int) or isinstance(self.scaling_rounds, bool) or self.scaling_rounds < 0:
            found = f"scaling_rounds={self.scaling_rounds!r}"
            raise InputError(message(found, "an integer of at least 0", "correct it or leave it out"))
        _one_of("factor", self.factor, ("dense", "woodbury", None))
        _one_of("adaptive", self.adaptive, (True, False))
        _one_of("newton", self.newton, (True, False))


@dataclass(frozen=True, slots=True, kw_only=True)
class DavisYin(SplittingChoice):
    """Two groups of proxes and a gradient step; no linear system.

    Args:
        step: γL is at most this, in (0, 2).
        relaxation: λ as a share, in (0, 1), of its bound 2 − γL/2.
        adaptive: γ follows the sizes of the point and its multipliers; else it is the least of step/L and 1.
        newton: finish with semismooth Newton steps where the program is small.

    Raises:
        InputError: a number out of its range.

    Source: Davis, Yin, *A three-operator splitting scheme*, Set-Valued Var. Anal. 25 (2017), theorem 2.1.
    """

    name: ClassVar[SplittingName] = "davis-yin"
    step: float = 1.0
    relaxation: float = 0.8
    adaptive: bool = True
    newton: bool = True

    def __post_init__(self) -> None:
        _within("step", self.step, 2.0)
        _within("relaxation", self.relaxation, 1.0)
        _one_of("adaptive", self.adaptive, (True, False))
        _one_of("newton", self.newton, (True, False))


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
        _one_of("adaptive", self.adaptive, (True, False))


CHOICES: dict[str, type[SplittingChoice]] = {
    c.name: c for c in (ClosedForm, ForwardBackward, DavisYin, DouglasRachford, PDHG)
}


def choice(asked: object) -> SplittingChoice | None:
    """What was asked for, a name as the class it stands for.

    Raises:
        CompileError: no splitting has this name, or the value is something else.
    """
    if asked is None or isinstance(asked, SplittingChoice):
        return asked
    if isinstance(asked, type) and issubclass(asked, SplittingChoice):
        fix = f"write oc.{asked.__name__}()"
        raise CompileError(message(f"splitting={asked.__name__}, a class", "a splitting with its options", fix))
    made = CHOICES.get(asked) if isinstance(asked, str) else None
    if made is None:
        expected = f"one of {', '.join(NAMES)}, or e.g. oc.DouglasRachford(rho=1.0)"
        raise CompileError(message(f"splitting={asked!r}", expected, "leave it out to let the plan choose"))
    return made()


def refused(wanted: SplittingChoice, why: str) -> CompileError:
    """The error for a splitting that was asked for and does not fit."""
    options = f" with {wanted.changed}" if wanted.changed else ""
    fix = "leave splitting= out, or take douglas-rachford or primal-dual, which fit every program"
    found = f'splitting="{wanted.name}"{options} does not fit: {why}'
    return CompileError(message(found, "a program of its structure", fix))


def _within(name: str, value: object, high: float, *, closed: bool = False) -> None:
    """Raises InputError where a value is no number in (0, high), or (0, high] where that is `closed`."""
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and (0.0 < number < high or (closed and number == high))):
        between = "a positive number" if high == math.inf else f"a number in (0, {high:g}{']' if closed else ')'}"
        raise InputError(message(f"{name}={value!r}", between, "correct it or leave it out"))


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raises InputError where a value is none of `allowed`, 1 not being True."""
    if not any(type(value) is type(a) and value == a for a in allowed):
        words = f"{', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}"
        raise InputError(message(f"{name}={value!r}", words, "correct it or leave it out"))
