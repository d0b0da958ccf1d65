"""The negative log-determinant of a symmetric matrix, f(X) = −ln det X."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Data, Spelling
from opteq_cvx.atoms.lifting import Lifting
from opteq_cvx.atoms.neg_log import NegLog
from opteq_cvx.atoms.spectral import OfEigenvalues, Spectral, eigenvalues
from opteq_cvx.ir.pattern import Op

_PROX = OfEigenvalues(lambda values, t: NegLog().prox(values, t, {}))


@dataclass(frozen=True, slots=True)
class NegLogDet(Lifting):
    """f(X) = −ln det X for X ≻ 0 over the last two axes; the prox is that of −ln x, on eigenvalues."""

    name = "neg_log_det"
    formula = "−ln det X"
    cost = "O(n³)"
    source = "Parikh, Boyd 2014, section 6.7.5; spectral lifting of −ln"
    traits = frozenset({})
    patterns = (Op("neg_log_det"),)
    spellings = (
        Spelling(
            text="-log_det((x + x.T) / 2 + 10 * np.eye(3))",
            variables={"x": (3, 3)},
            arg="(x + x.T) / 2 + 10 * np.eye(3)",
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return NegLog().value(eigenvalues(x), data).sum(-1, keepdim=True).unsqueeze(-1)

    @property
    @override
    def lifted(self) -> Spectral:
        return _PROX

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        values = NegLog().conjugate(eigenvalues(y), data)
        return values.sum(-1, keepdim=True).unsqueeze(-1)
