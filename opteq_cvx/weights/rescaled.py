"""Rescaled: the norm bound of a kernel, or of a matrix beside an attribute that shrinking keeps (signs, symmetry)."""

import math

from torch import Tensor
from typing_extensions import override

from opteq_cvx.weights import kernels
from opteq_cvx.weights.bounds import gram
from opteq_cvx.weights.part import Part, margin

RETREAT = 1e-3
"""Relative distance from the bound at which a projected value lands."""


class Rescaled(Part):
    """W = Y / √(1 + b(Y)²/ρ'²) with b a certified, homogeneous and smooth bound of ‖Y‖₂, so ‖W‖₂ < ρ.

    A bijection onto {b(W) < ρ'}, and W reaches no further than that: b is within min(m, n)^(1/1024) of the norm of a
    matrix. A kernel (O, I, *taps) is bounded as the convolution with it, see `kernels.bound`.

    Source: Delattre et al., arXiv 2305.16173 (Gram iteration).
    """

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.radius = radius

    @override
    def forward(self, raw: Tensor) -> Tensor:
        Y = raw.double()
        b = self._bound(Y if raw.ndim == 2 else raw).double() / self._limit(raw)
        return (Y * (1.0 + b.square()).rsqrt()).to(raw.dtype)

    @override
    def right_inverse(self, value: Tensor) -> Tensor:
        b = self._bound(value) / self._limit(value)
        return value * (1.0 - b.square()).rsqrt()

    @override
    def project(self, value: Tensor) -> Tensor:
        return self._shrink(value, self.radius)

    @override
    def inside(self, value: Tensor) -> Tensor:
        return self._shrink(value, self._limit(value) * (1 - 1e-9))

    def _shrink(self, value: Tensor, limit: float) -> Tensor:
        b = float(self._bound(value))
        return value if b <= limit else value * (self.radius * (1 - RETREAT) / b)

    def _bound(self, value: Tensor) -> Tensor:
        return gram(value) if value.ndim == 2 else kernels.bound(value)

    def _limit(self, value: Tensor) -> float:
        """Rounding moves a kernel by at most u‖|K|‖ ≤ u√(T·min(O, I·T))‖K‖ with T taps."""
        taps = math.prod(value.shape[2:])
        return self.radius * (1 - margin(value.dtype, taps * min(value.shape[0], value.shape[1] * taps)))
