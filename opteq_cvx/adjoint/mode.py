"""How a layer's output gets its gradient: the interface of the adjoint modes and what they return."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.adjoint.problem import FixedPoint, mend
from opteq_cvx.splitting.contract import Certificate, Prepared, Theta


@dataclass(frozen=True, slots=True)
class Equilibrated:
    """An equilibrium with its gradient attached.

    z (B, d) is differentiable in θ; the others are not: residual, steps, converged, finite, failed (B,), `prepared`
    with its certificate (modulus (1|B,), NaN where nothing is known; convex, empty and unbounded (B,)).
    """

    z: Tensor
    failed: Tensor
    residual: Tensor
    steps: Tensor
    converged: Tensor
    finite: Tensor
    prepared: Prepared


class AdjointMode(ABC):
    """Solve and attach a gradient; instances are frozen dataclasses of options, keyword-only."""

    @abstractmethod
    def equilibrate(self, problem: FixedPoint, z0: Tensor, theta: Theta, valid: Tensor | None = None) -> Equilibrated:
        """The fixed point from z0 (B, d), differentiable in θ.

        Args:
            valid: (B,), False for samples whose data the caller rejects: they fail, with a zero gradient.
        """


def everything(z0: Tensor, valid: Tensor | None) -> Tensor:
    """`valid`, or all True."""
    return torch.ones(z0.shape[0], dtype=torch.bool, device=z0.device) if valid is None else valid


def gather(outputs: tuple[Tensor, ...]) -> Equilibrated:
    """The tuple of `Equilibrium.apply` by name."""
    z, failed, residual, steps, converged, finite, modulus, convex, empty, unbounded, *tensors = outputs
    prepared = Prepared(tuple(tensors), Certificate(modulus, convex, empty, unbounded))
    return Equilibrated(z, failed, residual, steps, converged, finite, prepared)


def sound(
    problem: FixedPoint, found: Equilibrated, z: Tensor, theta: Theta
) -> tuple[Tensor, Theta, tuple[Tensor, ...]]:
    """z, θ and the prepared tensors for differentiable steps, free of poison: see `mend`."""
    tensors = found.prepared.tensors
    if not problem.record.spoiled:
        return z, theta, tensors
    z, *rest = mend(found.failed, [z, *theta, *tensors])
    lost = found.failed.all()
    parameters = tuple(torch.where(lost, 0.0, t) for t in rest[: len(theta)])
    return z, parameters, tuple(rest[len(theta) :])
