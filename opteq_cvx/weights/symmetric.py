"""Symmetric: symmetric weights."""

from torch import Tensor
from typing_extensions import override

from opteq_cvx.weights.part import Part, symmetrized


class Symmetric(Part):
    """S = ½(A + Aᵀ) over the last two axes; entries keep the convex set of an entrywise part before it.

    Source: Lezcano-Casado, *Trivializations*, arXiv 1909.09501.
    """

    @override
    def forward(self, raw: Tensor) -> Tensor:
        return symmetrized(raw)

    @override
    def right_inverse(self, value: Tensor) -> Tensor:
        return value

    @override
    def project(self, value: Tensor) -> Tensor:
        return symmetrized(value)

    @override
    def polish(self, value: Tensor) -> Tensor:
        return symmetrized(value)
