"""Estimated seconds of a solve by a factorization and by products only: what the plan chooses between them by.

    factorization: n³/F, or B n³/G where every sample has its own, + S (4n(n + m)B/M + C)
    products only: T (2κB/M + 2λB/L + C), κ and λ the flops of one product with K and P through their maps, by matrices
    and convolutions and by all others,
for a batch of B = 32 on one core in float64. F, G, M, L are numbers per second and C the seconds of the calls of one
step; `python -m tests.benchmarks.costs` measures them, and compares the estimates with solves. S and T are counts of
steps that programs of both kinds mostly stay below. They vary more than all else: T is taken high, since products alone
need many thousand steps for some programs and for high accuracy, where a factorization is finished by Newton steps.
"""

from dataclasses import dataclass

from opteq_cvx.ir.linmap import Adjoint, Compose, Conv2d, LeftMul, LinearMap, RightMul, SumMap
from opteq_cvx.ir.linmap import stage as map_stage
from opteq_cvx.ir.param import Stage
from opteq_cvx.splitting.map_cost import cost
from opteq_cvx.splitting.operators import Maps

BATCH = 32
FACTOR, OWN = 1.6e9, 6e9  # F and G: n³ per second of a shared factorization, and of one per sample
PRODUCT, LOOSE = 2e10, 1e9  # M and L: flops per second of a matrix product, and of structured maps
CALLS = 5e-4  # C
STEPS_FACTORED, STEPS_LOOSE = 100, 1000  # S and T
MARGIN = 2.0  # products only are taken where they are so many times cheaper
MOST = 1 << 25
"""Numbers that a factorization may hold, all samples of the batch together where each has its own: 256 MB."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of a solve by either way, n and m, and whether the factorization fits in memory."""

    n: int
    m: int
    factored: float
    products: float
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
        """What products only would cost, beside a factorization."""
        return f"products only: about {self.products:.2g} s for {BATCH} samples, against {self.factored:.2g} s"


def estimate(maps: Maps) -> Estimate:
    """Of a program whose proximal terms, and quadratic ones that no prox takes, are `maps`."""
    n, m = maps.layout.n, maps.m
    terms = (*maps.terms, *maps.quadratic)
    own = any(map_stage(k) is Stage.INPUT for t in terms for _, k in t.arg.parts)
    factor = BATCH * n**3 / OWN if own else n**3 / FACTOR
    factored = factor + STEPS_FACTORED * (4.0 * n * (n + m) * BATCH / PRODUCT + CALLS)
    found = [_flops(k) for t in terms for _, k in t.arg.parts]
    found += [(2 * t.data["P"].shape[0] ** 2, 0) for t in terms if t.atom == "quad_form"]
    dense, loose = (2.0 * BATCH * sum(part) for part in zip((0, 0), *found, strict=True))
    products = STEPS_LOOSE * (dense / PRODUCT + loose / LOOSE + CALLS)
    return Estimate(n, m, factored, products, (BATCH if own else 1) * n * (n + m) <= MOST)


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
