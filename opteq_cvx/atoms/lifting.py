"""Functions of the eigenvalues or singular values of a matrix: prox and Jacobian follow from those of numbers."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data
from opteq_cvx.atoms.spectral import Spectral


@dataclass(frozen=True, slots=True)
class Lifting(Atom):
    """f(X) = g(λ(X)) or g(σ(X)) over the last two axes."""

    @property
    @abstractmethod
    def lifted(self) -> Spectral:
        """The prox of g, of (values, step), lifted to matrices."""

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return self.lifted(v, _numbers(step, v))

    @override
    def jacobian(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return self.lifted.matrix(v, _numbers(step, v))


def _numbers(step: Tensor, v: Tensor) -> Tensor:
    """One step a matrix, (*batch, 1)."""
    return step.squeeze(-1).expand((*v.shape[:-2], 1))
