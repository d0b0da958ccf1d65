"""The negative von Neumann entropy of a positive semidefinite matrix, f(X) = tr X ln X."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Data, Spelling
from opteq_cvx.atoms.lifting import Lifting
from opteq_cvx.atoms.neg_entr import NegEntr
from opteq_cvx.atoms.spectral import OfEigenvalues, Spectral, eigenvalues
from opteq_cvx.ir.pattern import Op

_PROX = OfEigenvalues(lambda values, t: NegEntr().prox(values, t, {}))


@dataclass(frozen=True, slots=True)
class NegVonNeumannEntr(Lifting):
    """f(X) = Σ λ ln λ for X ⪰ 0 over the last two axes; the prox is that of x ln x, on eigenvalues."""

    name = "neg_von_neumann_entr"
    formula = "tr X ln X"
    cost = "O(n³)"
    source = "Parikh, Boyd 2014, section 6.7 (matrix functions), of x ln x"
    traits = frozenset({})
    patterns = (Op("neg_von_neumann_entr"),)
    spellings = (
        Spelling(
            text="-von_neumann_entr(symmetric_wrap((x + x.T) / 2 + 10 * np.eye(3)))",
            variables={"x": (3, 3)},
            arg="(x + x.T) / 2 + 10 * np.eye(3)",
            argmin=False,  # CVXPY's cone form is a quadrature
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        values = eigenvalues(x)
        size = torch.finfo(x.dtype).eps * values.abs().amax(-1, keepdim=True) * x.shape[-1]
        rounded = torch.where((values < 0) & (values >= -8.0 * size), 0.0, values)  # of a singular matrix
        return NegEntr().value(rounded, data).sum(-1, keepdim=True).unsqueeze(-1)

    @property
    @override
    def lifted(self) -> Spectral:
        return _PROX

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        values = NegEntr().conjugate(eigenvalues(y), data)
        return values.sum(-1, keepdim=True).unsqueeze(-1)
