"""Estimated seconds of a solve by a factorization and by products only: what the plan chooses between them by.

    factorization: n³/F, or B n³/G where every sample has its own, + S (4n(n + m)B/M + e + aB(n + m)/L + C)
    products only: T (2κB/M + 2λB/L + e' + C), κ and λ the flops of one product with K and P through their maps, by
                   matrices and convolutions and by all others,
for a batch of B = 32 on one core in float64. a(n + m) are the passes of Anderson acceleration over its memory, e and e'
a look at the optimality error at every fifth step: two products with K and one with P. F, G, M, L are numbers per
second and C the seconds of the calls of one step; `python -m tests.benchmarks.costs` measures them, and compares the
estimates with solves. S and T are counts of steps that programs of both kinds mostly stay below. They vary more than
all else. Where the objective is strongly convex by a diagonal part of its quadratic, primal–dual steps converge at
least as 1/k² and T is three times S; else they promise 1/k only, many thousand steps for some programs and for high
accuracy, and T is taken high, where a factorization is finished by Newton steps.
Source: Chambolle & Pock, *A first-order primal-dual algorithm for convex problems* (2011), theorems 1 and 2.
"""

from dataclasses import dataclass

import torch

from opteq_cvx.ir.linmap import Adjoint, Compose, Conv2d, LeftMul, LinearMap, RightMul, SumMap
from opteq_cvx.ir.linmap import stage as map_stage
from opteq_cvx.ir.param import Stage
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.map_cost import cost
from opteq_cvx.splitting.saddle_form import SaddleForm

BATCH = 32
FACTOR, OWN = 1.6e9, 6e9  # F and G: n³ per second of a shared factorization, and of one per sample
PRODUCT, LOOSE = 2e10, 1e9  # M and L: flops per second of a matrix product, and of structured maps
CALLS = 5e-4  # C
STEPS_FACTORED, STEPS_CURVED, STEPS_LOOSE = 100, 300, 1000  # S, and T with strong convexity and without
ANDERSON = 40.0  # a: ten differences of states and as many of images, each read and multiplied
LOOKS = 0.2  # looks at the error in a step
MARGIN = 2.0  # products only are taken where they are so many times cheaper
MOST = 1 << 25
"""Numbers that a factorization may hold, all samples of the batch together where each has its own: 256 MB."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of a solve by either way, n and m, whether strong convexity shows, and a factorization fits in memory."""

    n: int
    m: int
    factored: float
    products: float
    curved: bool
    fits: bool

    @property
    def refusal(self) -> str | None:
        """Why products are taken, or None where a factorization is the cheaper way."""
        size = f"a dense factor of {self.n} unknowns and K of {self.m} rows"
        if not self.fits:
            return f"{size} are more than {MOST:.2g} numbers"
        if self.factored <= MARGIN * self.products:
            return None
        return f"{size} cost about {self.factored:.2g} s for {BATCH} samples, products only {self.products:.2g} s"

    @property
    def text(self) -> str:
        """What products only would cost, beside a factorization, and in how many steps."""
        steps = f"{STEPS_CURVED if self.curved else STEPS_LOOSE} steps against {STEPS_FACTORED}"
        why = "strongly convex" if self.curved else "no strong convexity shows"
        seconds = f"about {self.products:.2g} s for {BATCH} samples, against {self.factored:.2g} s"
        return f"products only: {seconds}; {steps} ({why})"


def estimate(form: SaddleForm) -> Estimate:
    """Of a program by its proximal terms, and quadratic ones that no prox takes."""
    maps, curved = form.maps, strongly_convex(form)
    n, m = maps.layout.n, maps.m
    terms = (*maps.terms, *maps.quadratic)
    own = any(map_stage(k) is Stage.INPUT for t in terms for _, k in t.arg.parts)
    found = [_flops(k) for t in terms for _, k in t.arg.parts]
    found += [(2 * t.data["P"].shape[0] ** 2, 0) for t in terms if t.atom == "quad_form"]
    dense, loose = (2.0 * BATCH * sum(part) for part in zip((0, 0), *found, strict=True))
    factor = BATCH * n**3 / OWN if own else n**3 / FACTOR
    flops = 4.0 * n * (n + m) + LOOKS * 2.0 * n * (n + 2 * m)
    factored = STEPS_FACTORED * (flops * BATCH / PRODUCT + ANDERSON * BATCH * (n + m) / LOOSE + CALLS)
    product = (1.0 + LOOKS) * (dense / PRODUCT + loose / LOOSE) + CALLS
    fits = (BATCH if own else 1) * n * (n + m) <= MOST
    return Estimate(n, m, factor + factored, (STEPS_CURVED if curved else STEPS_LOOSE) * product, curved, fits)


def strongly_convex(form: SaddleForm) -> bool:
    """Whether constant squares of entries hold every coordinate."""
    if form.diagonal.stage is not Stage.CONSTANT or not form.diagonal.quadratic:
        return False
    found = form.diagonal.hessian(Environment({}, torch.float64, torch.device("cpu")))
    return bool((found > 0).all())


def _flops(m: LinearMap) -> tuple[int, int]:
    """Of one product with a map: those of matrices and convolutions, and all others."""
    match m:
        case Compose(maps=maps) | SumMap(maps=maps):
            parts = [_flops(part) for part in maps]
            return sum(p[0] for p in parts), sum(p[1] for p in parts)
        case Adjoint(of=of):
            return _flops(of)
        case LeftMul() | RightMul() | Conv2d():
            return cost(m), 0
        case _:
            return 0, cost(m)
