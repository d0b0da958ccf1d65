"""The cone of positive semidefinite matrices."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.spectral import OfEigenvalues, eigenvalues
from opteq_cvx.ir.pattern import Op

_PROJECTION = OfEigenvalues(torch.relu)


@dataclass(frozen=True, slots=True)
class Psd(Atom):
    """The indicator of {X ⪰ 0} over the last two axes; projection U diag(max(λ, 0)) Uᵀ of the symmetric part.

    An eigenvalue 0 has derivative 0.
    """

    name = "psd"
    formula = "ι{X ⪰ 0}"
    cost = "O(n³)"
    source = "Parikh, Boyd 2014, section 6.3.3"
    traits = frozenset({Trait.SET, Trait.CONE})
    patterns = (Op("psd"),)
    spellings = (
        Spelling(text="x >> 0", constraint=True, variables={"x": (3, 3)}, arg="(x + x.T) / 2"),
        Spelling(text="x << 0", constraint=True, variables={"x": (3, 3)}, arg="-(x + x.T) / 2"),
        Spelling(
            text="A + x >> 0",
            constraint=True,
            variables={"x": (3, 3)},
            parameters={"A": ((3, 3), {"symmetric": True})},
            arg="A + (x + x.T) / 2",
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs().sum((-2, -1), keepdim=True))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return _PROJECTION(v)

    @override
    def jacobian(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return _PROJECTION.matrix(v)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        largest = eigenvalues(y)[..., -1:].unsqueeze(-1)
        return indicator(torch.relu(largest), y.abs().sum((-2, -1), keepdim=True))

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        skew = (x - x.mT).abs().amax((-2, -1), keepdim=True)
        return torch.relu(-eigenvalues(x)[..., :1].unsqueeze(-1)) + skew
