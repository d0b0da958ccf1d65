"""The nuclear norm of a matrix, f(X) = Σ σ_i(X): low rank."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Data, Spelling, Trait
from opteq_cvx.atoms.lifting import Lifting
from opteq_cvx.atoms.primitives import indicator, soft_threshold
from opteq_cvx.atoms.spectral import OfSingularValues, Spectral, singular_values
from opteq_cvx.ir.pattern import Op

_PROX = OfSingularValues(soft_threshold)


@dataclass(frozen=True, slots=True)
class NormNuc(Lifting):
    """f(X) = Σ σ_i(X) over the last two axes; prox: soft threshold of the singular values."""

    name = "norm_nuc"
    formula = "Σ σ_i(X)"
    cost = "O(mn·min(m, n))"
    source = "Cai, Candès, Shen 2010, theorem 2.1; Parikh, Boyd 2014, section 6.7.3"
    traits = frozenset({Trait.HOMOGENEOUS, Trait.EVEN})
    patterns = (Op("norm_nuc"),)
    spellings = (
        Spelling(text="normNuc(x)", variables={"x": (3, 4)}),
        Spelling(text="norm(x, 'nuc')", variables={"x": (3, 3)}),
        Spelling(text="normNuc(x - B)", variables={"x": (4, 2)}, parameters={"B": ((4, 2), {})}, arg="x - B"),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return singular_values(x).sum(-1, keepdim=True).unsqueeze(-1)

    @property
    @override
    def lifted(self) -> Spectral:
        return _PROX

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        largest = singular_values(y)[..., :1].unsqueeze(-1)
        return indicator(largest - 1.0, y.abs().sum((-2, -1), keepdim=True))
