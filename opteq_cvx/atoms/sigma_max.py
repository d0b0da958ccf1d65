"""The spectral norm of a matrix, f(X) = σ_max(X)."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Data, Spelling, Trait
from opteq_cvx.atoms.lifting import Lifting
from opteq_cvx.atoms.norm_inf import NormInf
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.spectral import OfSingularValues, Spectral, singular_values
from opteq_cvx.ir.pattern import Op

_PROX = OfSingularValues(lambda values, t: NormInf().prox(values, t, {}))


@dataclass(frozen=True, slots=True)
class SigmaMax(Lifting):
    """f(X) = σ_max(X) over the last two axes; prox: that of the largest magnitude, on singular values."""

    name = "sigma_max"
    formula = "σ_max(X)"
    cost = "O(mn·min(m, n))"
    source = "Parikh, Boyd 2014, section 6.7 (matrix functions), of the maximum norm"
    traits = frozenset({Trait.HOMOGENEOUS, Trait.EVEN})
    patterns = (Op("sigma_max"),)
    spellings = (
        Spelling(text="sigma_max(x)", variables={"x": (3, 4)}),
        Spelling(text="norm(x, 2)", variables={"x": (3, 3)}),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return singular_values(x)[..., :1].unsqueeze(-1)

    @property
    @override
    def lifted(self) -> Spectral:
        return _PROX

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        total = singular_values(y).sum(-1, keepdim=True).unsqueeze(-1)
        return indicator(total - 1.0, y.abs().sum((-2, -1), keepdim=True))
