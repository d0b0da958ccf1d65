"""A random program: built from a source, with three samples of its inputs and what is known of its solution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cvxpy as cp
import numpy as np

import opteq_cvx as oc
from opteq_cvx.splitting.asked import SplittingChoice
from tests.fuzz import alone
from tests.fuzz.builder import Builder
from tests.fuzz.source import Source
from tests.fuzz.terms import constraint, featured, spelled_constraints, spelled_term, template

DAVIS_YIN, WOODBURY, FACTORS = (
    oc.DavisYin(),
    oc.DouglasRachford(factor="woodbury"),
    oc.ForwardBackward(matrix="factors"),
)
ASKED: tuple[SplittingChoice | None, ...] = (
    *(None,) * 11,
    *(DAVIS_YIN,) * 11,
    *(oc.PDHG(),) * 2,
    WOODBURY,
    FACTORS,
)

ALONE: dict[str, tuple[Callable[[Builder], alone.Made], tuple[SplittingChoice | None, ...]]] = {
    "near": (alone.near, (None,)),
    "fitted": (alone.fitted, (None, FACTORS, DAVIS_YIN)),
    "fitted again": (alone.fitted, (None, FACTORS, FACTORS)),
    "pictured": (alone.pictured, (None, FACTORS)),
}
"""Structures that are drawn beside "mixed", and what they ask for."""


@dataclass(frozen=True)
class Made:
    """A program ready to be compiled.

    kind: "feasible", "infeasible" or "unbounded", by construction ("free": bounded or not, the solver says).
    asked: a splitting to be taken where it fits, instead of the plan's.
    modulus: a strong convexity modulus of the objective in all variables, 0 where none is known.
    """

    problem: cp.Problem
    builder: Builder
    kind: str
    modulus: float
    labels: tuple[str, ...]
    asked: SplittingChoice | None = None

    @property
    def text(self) -> str:
        """The program in CVXPY's words."""
        return str(self.problem)


def make(source: Source, *, wild: bool = False) -> Made:
    """A random program from the source's choices; `wild` scales data over 1e-6 … 1e6."""
    spread = source.choose((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 3.0))
    b = Builder(source, 6.0 if wild else spread)
    structure = source.choose(("mixed",) * 14 + tuple(ALONE))
    if structure in ALONE:
        draw, splittings = ALONE[structure]
        label, terms, b.constraints, modulus = draw(b)
        return finished(b, "feasible", [label], terms, modulus, splittings)
    direct = source.chance(40)
    kind = source.choose(("feasible",) * 8 + ("infeasible", "unbounded"))
    labels, terms = list[str](), list[cp.Expression]()
    if not direct:
        for _ in range(1 + source.pick(2)):
            start_variable(b)
    if source.chance(60):
        label, found_terms, found_sets = featured(b)
        labels.append(label)
        terms += [weighted(b, term) for term in found_terms]
        b.constraints += found_sets
    for _ in range(source.pick(3) + (not direct)):
        label, term = (template_term if source.chance(45) and b.variables else spelled_term)(b, direct)
        labels.append(label)
        terms.append(weighted(b, term))
    for _ in range(source.pick(2 if direct else 3)):
        label, found = (spelled_constraints if source.chance(45) or direct else plain_constraint)(b, direct)
        labels.append(label)
        b.constraints += found
    if not b.variables:
        start_variable(b)
    modulus = coercive(b, terms)
    if kind == "infeasible":
        b.constraints += contradiction(b)
    if kind == "unbounded":
        ray(b, terms)
    if kind == "feasible" and modulus < 0:
        kind = "free"
    return finished(b, kind, labels, terms, modulus, ASKED)


def finished(
    b: Builder,
    kind: str,
    labels: list[str],
    terms: list[cp.Expression],
    modulus: float,
    splittings: Sequence[SplittingChoice | None],
) -> Made:
    """The program of terms and constraints, minimized or maximized, with a splitting to ask for."""
    source = b.source
    total = sum(terms[1:], terms[0]) if terms else cp.sum(b.variables[0]) * 0.0
    constants = source.chance(20)
    total = total + (b.data(lambda rng: rng.normal()) if constants else 0.0)
    objective = cp.Maximize(-total) if source.chance(15) else cp.Minimize(total)
    b.at(0)
    asked = source.choose(splittings)
    return Made(cp.Problem(objective, b.constraints), b, kind, max(modulus, 0.0), tuple(labels), asked)


def plain_constraint(b: Builder, direct: bool) -> tuple[str, list[cp.Constraint]]:
    """A constraint over random affine expressions."""
    return constraint(b)


def template_term(b: Builder, direct: bool) -> tuple[str, cp.Expression]:
    """A template over random affine expressions."""
    return template(b)


def start_variable(b: Builder) -> None:
    """A variable: vector, scalar or matrix, with or without attributes."""
    shape = b.source.choose(((b.size(),), (b.size(),), (), (3, 2), (2, 4)))
    kind = b.source.choose(("plain", "plain", "plain", "nonneg", "bounds", "symmetric", "PSD"))
    if kind == "symmetric":
        a = b.source.normal(3, 3)
        b.variable((3, 3), a + a.T, symmetric=True)
    elif kind == "PSD":
        a = b.source.normal(2, 2)
        b.variable((2, 2), a @ a.T + 0.1 * np.eye(2), PSD=True)
    elif kind == "nonneg":
        b.variable(shape, np.abs(b.source.normal(*shape)), nonneg=True)
    elif kind == "bounds":
        b.variable(shape, b.source.uniform(-1, 1, *shape), bounds=[-1.5, 1.25])
    else:
        b.variable(shape, b.source.normal(*shape))


def weighted(b: Builder, term: cp.Expression) -> cp.Expression:
    """The term, or a nonnegative multiple of it at a random stage."""
    if not b.source.chance(50):
        return term * b.factor() if b.spread else term
    factor = b.factor()
    return b.data(lambda rng: factor * rng.uniform(0.1, 2.0), nonneg=True) * term


def coercive(b: Builder, terms: list[cp.Expression]) -> float:
    """Make the program bounded; the objective's strong convexity modulus, 0 if bounded without, −1 if left as it is."""
    how = b.source.choose(("strong", "strong", "strong", "strong", "strong", "box", "box", "free"))
    modulus = np.inf
    if how == "free":
        return -1.0
    for v in b.variables:
        if how == "strong":
            scale = float(b.source.uniform(0.1, 2.0))
            center = b.data(lambda rng, v=v: 2.0 * rng.normal(size=v.shape)) if b.source.chance(70) else 0.0
            terms.append(scale * cp.sum_squares(v - center))
            modulus = min(modulus, 2.0 * scale)
        else:
            room = b.source.uniform(0.5, 3.0, *v.shape)
            b.constraints += [v >= v.value - room, v <= v.value + room]
            modulus = 0.0
    return float(modulus)


def contradiction(b: Builder) -> list[cp.Constraint]:
    """Constraints that no point satisfies, with a margin."""
    v = b.source.choose(b.variables)
    how = b.source.pick(6)
    total = cp.sum(v)
    if how == 0:
        return [total <= b.given(np.zeros(3)), total >= b.given(np.ones(3) * float(b.source.uniform(0.5, 3.0)))]
    if how == 1:
        return [cp.norm(cp.vec(v, order="F"), 2) <= 1, total >= 3.0 * v.size]
    if how == 2:
        return [v >= 1, v <= b.given(np.stack([np.zeros(v.shape)] * 3))]
    if how == 3:
        return [v >= 0, total == -1]
    if how == 4:
        return [cp.sum_squares(v) <= -0.5]
    return [cp.hstack([total, 2 * total]) == b.given(np.stack([np.array([1.0, 1.0])] * 3))]


def ray(b: Builder, terms: list[cp.Expression]) -> None:
    """A variable along which the objective falls for ever."""
    n = b.source.choose((1, 3))
    other, how = b.affine((n,)), b.source.pick(4)  # before d exists: it must not occur there
    d = b.variable((n,), np.abs(b.levels(other)).max(axis=0) + b.source.uniform(0.5, 1.0, n))
    c = b.given(np.stack([b.source.uniform(0.5, 2.0, n)] * 3))
    terms.append(-c @ d)
    if how == 1:
        b.constraints.append(d >= 0)
    if how == 2:
        b.constraints.append(d >= cp.abs(other))
    if how == 3:
        terms.append(0.5 * cp.norm1(cp.neg(d)))
        b.constraints.append(cp.norm(d[1:], 2) <= d[0] + 5 if n > 1 else d >= -3)


def random_program(seed: int, *, wild: bool = False) -> Made:
    """The program of a seed."""
    return make(Source(rng=np.random.default_rng(seed)), wild=wild)
