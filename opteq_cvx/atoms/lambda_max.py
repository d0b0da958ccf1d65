"""The largest eigenvalue of a symmetric matrix, f(X) = λ_max(X)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Data, Spelling, Trait
from opteq_cvx.atoms.lifting import Lifting
from opteq_cvx.atoms.max import Max
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.spectral import OfEigenvalues, Spectral, eigenvalues
from opteq_cvx.ir.pattern import Op

_PROX = OfEigenvalues(lambda values, t: Max().prox(values, t, {}))


@dataclass(frozen=True, slots=True)
class LambdaMax(Lifting):
    """f(X) = λ_max(X) over the last two axes; prox: that of the largest entry, on eigenvalues."""

    name = "lambda_max"
    formula = "λ_max(X)"
    cost = "O(n³)"
    source = "Parikh, Boyd 2014, section 6.7 (matrix functions), of max"
    traits = frozenset({Trait.HOMOGENEOUS})
    patterns = (Op("lambda_max"),)
    spellings = (
        Spelling(text="lambda_max((x + x.T) / 2)", variables={"x": (3, 3)}, arg="(x + x.T) / 2"),
        Spelling(text="-lambda_min((x + x.T) / 2)", variables={"x": (3, 3)}, arg="-(x + x.T) / 2"),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return eigenvalues(x)[..., -1:].unsqueeze(-1)

    @property
    @override
    def lifted(self) -> Spectral:
        return _PROX

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        values = eigenvalues(y).unsqueeze(-2)
        outside = torch.relu(-values[..., :1]) + (values.sum(-1, keepdim=True) - 1.0).abs()
        return indicator(outside, y.abs().sum((-2, -1), keepdim=True))
