"""The trace of the inverse of a symmetric matrix, f(X) = tr X⁻¹: A-optimal design."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Data, Spelling
from opteq_cvx.atoms.lifting import Lifting
from opteq_cvx.atoms.power import Power
from opteq_cvx.atoms.spectral import OfEigenvalues, Spectral, eigenvalues
from opteq_cvx.ir.pattern import Op

_INVERSE = Power(-1.0)
_PROX = OfEigenvalues(lambda values, t: _INVERSE.prox(values, t, {}))


@dataclass(frozen=True, slots=True)
class TrInv(Lifting):
    """f(X) = tr X⁻¹ for X ≻ 0 over the last two axes; the prox is that of 1/x, on eigenvalues."""

    name = "tr_inv"
    formula = "tr X⁻¹"
    cost = "O(n³)"
    source = "Parikh, Boyd 2014, section 6.7 (matrix functions), of 1/x"
    traits = frozenset({})
    patterns = (Op("tr_inv"),)
    spellings = (
        Spelling(
            text="tr_inv((x + x.T) / 2 + 10 * np.eye(3))",
            variables={"x": (3, 3)},
            arg="(x + x.T) / 2 + 10 * np.eye(3)",
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return _INVERSE.value(eigenvalues(x), data).sum(-1, keepdim=True).unsqueeze(-1)

    @property
    @override
    def lifted(self) -> Spectral:
        return _PROX

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        values = _INVERSE.conjugate(eigenvalues(y), data)
        return values.sum(-1, keepdim=True).unsqueeze(-1)
