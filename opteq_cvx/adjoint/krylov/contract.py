"""Batched linear systems (I − J)ᵀ w = v or (I − J) w = v, one per sample, and what a solver of them returns."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.splitting.linearization import Linearization


@dataclass(frozen=True, slots=True)
class System:
    """A w = v with A = (I − J)ᵀ if `transposed`, else I − J.

    restrict: the linearization of some samples only (an index tensor), for a second solver on what a first one left.
    rate: where J = D M, a certified bound of the largest eigenvalue of D^½ M D^½ below 1, M ⪰ 0; None: no such.
    """

    jacobian: Linearization
    transposed: bool
    restrict: Callable[[Tensor], Linearization]
    rate: float | None = None

    def apply(self, x: Tensor) -> Tensor:
        """A x, (B, d) → (B, d)."""
        return x - (self.jacobian.rmatvec(x) if self.transposed else self.jacobian.matvec(x))

    def apply_transpose(self, x: Tensor) -> Tensor:
        """Aᵀ x, (B, d) → (B, d)."""
        return x - (self.jacobian.matvec(x) if self.transposed else self.jacobian.rmatvec(x))

    def rows(self, index: Tensor) -> "System":
        """The system of the samples `index`."""
        return System(self.restrict(index), self.transposed, self.restrict, self.rate)


@dataclass(frozen=True, slots=True)
class Linear:
    """The solution w (B, d), its residual ‖v − A w‖ / ‖v‖ (B,), steps (B,), and whether the solver is content (B,)."""

    w: Tensor
    residual: Tensor
    steps: Tensor
    converged: Tensor


class LinearSolver(ABC):
    """A batched solver; instances are frozen dataclasses of options, keyword-only."""

    @abstractmethod
    def solve(self, system: System, v: Tensor, *, tolerance: Tensor | float, max_steps: int) -> Linear:
        """Solve A w = v for v (B, d), without autograd, to ‖v − A w‖ ≤ tolerance · ‖v‖ per sample.

        A sample with v = 0 has w = 0 at once. Neighbours never matter.
        """


def norms(x: Tensor) -> Tensor:
    """‖x‖ per row, (B, d) → (B,)."""
    size: Tensor = torch.linalg.vector_norm(x, dim=1)
    return size


def relative(residual: Tensor, size: Tensor) -> Tensor:
    """residual / size, and 0 where the residual is 0."""
    return torch.where(residual == 0, 0.0, residual / size)


def plausible(w: Tensor, v: Tensor) -> Tensor:
    """Whether ‖w‖ ≤ ‖v‖ / √eps: beyond, the system is numerically singular and a small residual says nothing."""
    bound: float = torch.finfo(w.dtype).eps ** -0.5
    return norms(w) <= bound * norms(v)
