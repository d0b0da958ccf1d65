"""How far the metric R of the augmented Lagrangian may grow, row by row: not beyond what rounding allows.

The multipliers are y = R(v − w), so that y is uncertain by ε R (|K||x| + |b| + |y|/R), ε the unit of rounding. Where
Kᵀy is uncertain by more than the tolerance, no step finds the minimum of the inner problem any more. On the way to an
infimum that no point attains, y tends to 0 and x grows; there yᵀKx is what has to be accurate.
Source: rounding of sums, Higham, *Accuracy and Stability of Numerical Algorithms* (2002), section 3.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.graph_form import coupled
from opteq_cvx.splitting.groups import Rows, least_of, shared
from opteq_cvx.splitting.matrices import Matrices
from opteq_cvx.splitting.sizes import top

GROW = 10.0
LIMIT = 1e8  # R never grows by more than this
NOISE = 0.3  # rounding moves a row's part of Kᵀy by at most this share of the tolerance
FINEST = 1e-10  # of tolerances: below, the worst case of all roundings is far from what happens


@dataclass(frozen=True, slots=True)
class Penalty:
    """The metric R (1|B, m) to grow from, |K|, b (1|B, m), and rows that share one entry of R."""

    metric: Tensor
    k: Matrices
    b: Tensor
    groups: Sequence[Rows]
    tolerance: float

    @staticmethod
    def of(parts: Sequence[Block], metric: Tensor, matrices: Matrices, b: Tensor, tolerance: float) -> "Penalty":
        """Rows that a prox couples share their entry of R."""
        return Penalty(metric, matrices.magnitudes(), b, coupled(parts), max(tolerance, FINEST))

    def terms(self, x: Tensor, y: Tensor, r: Tensor) -> Tensor:
        """|K||x| + |b| + |y|/R (B, m): the size of what v − w is the difference of."""
        return self.k.image(x.abs()) + self.b.abs() + y.abs() / r

    def noise(self, terms: Tensor, r: Tensor) -> Tensor:
        """The uncertainty of Kᵀy (B,), in the maximum norm."""
        return top(self.k.back(torch.finfo(r.dtype).eps * r * terms))

    def ceiling(self, terms: Tensor, size: Tensor, y: Tensor, kx: Tensor, ends: Tensor) -> Tensor:
        """The growth (B, m) at which rounding moves Kᵀy, of the size `size` (B,), by NOISE tolerances.

        Far out, where y is small, also that at which it moves both yᵀKx, of the size `ends` (B,), and y by as much.
        """
        tiny = torch.finfo(terms.dtype).tiny
        far = torch.minimum(kx.abs().sum(1) / ends, 1.0 / top(y).clamp_min(tiny))
        share = torch.maximum(self.k.tallest() / size[:, None], far[:, None])
        unit = torch.finfo(terms.dtype).eps * self.metric * terms * share
        return shared((NOISE * self.tolerance / unit.clamp_min(tiny)).clamp_max(LIMIT), self.groups, least_of)
