"""Names of the splittings, and the cost model for the choice between a factorization and products only."""

from typing import Literal, get_args

from opteq_cvx.splitting.operators import Maps

SplittingName = Literal["closed-form", "forward-backward", "davis-yin", "douglas-rachford", "primal-dual"]
NAMES: tuple[str, ...] = get_args(SplittingName)

DENSE = 1 << 22
"""Douglas–Rachford keeps n(n + m) numbers a sample and spends about 10 n³ flops on its factor, where PDHG needs neither
but some ten times as many iterations: on a CPU, with K shared by the batch, they break even at about this many numbers
(n ≈ 1,500 for m ≈ n: 2 s for the factor, 32 MB)."""


def dense_entries(n: int, m: int) -> int:
    """The numbers that Douglas–Rachford keeps for one factorization: H and K."""
    return n * (n + m)


def too_dense(maps: Maps) -> str | None:
    """Why a factorization is too large for a program, or None."""
    count = dense_entries(maps.layout.n, maps.m)
    if count <= DENSE:
        return None
    return (
        f"a dense factor of {maps.layout.n} unknowns and K of {maps.m} rows are {count:.2g} numbers, above {DENSE:.2g}"
    )
