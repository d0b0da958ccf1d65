"""The write-once slot that receives the gradient's error estimate during backward."""

from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.adjoint.krylov.contract import Linear, norms


@dataclass(frozen=True, slots=True)
class GradientError:
    """Per sample (B,), first order.

    residual: ‖v − (I − J)ᵀw‖ / ‖v‖ of the adjoint system.
    steps: of the linear solver.
    solved: whether that solver met its tolerance; False also where the system is singular and inconsistent.
    estimate: relative error of w, hence of the gradient: (adjoint residual·‖v‖/‖w‖ + forward residual) / μ, with μ
        the certified modulus, or ‖v‖/‖w‖ (at most 1) where none is certified. An estimate, not a bound.
    """

    residual: Tensor
    steps: Tensor
    solved: Tensor
    estimate: Tensor


@dataclass(frozen=True, slots=True)
class Adjoint:
    """What the adjoint solve leaves: ‖v‖, ‖w‖, the modulus (1|B,; NaN or 0 where unknown), and its own report."""

    size: Tensor
    length: Tensor
    modulus: Tensor
    residual: Tensor
    steps: Tensor
    solved: Tensor


class GradientRecord:
    """Filled by the first backward of one call; later ones (second order, another loss) leave it alone."""

    def __init__(self) -> None:
        self._error: GradientError | None = None
        self._adjoint: Adjoint | None = None
        self._forward: Tensor | None = None
        self._spoiled = False

    @property
    def error(self) -> GradientError | None:
        """The estimate; None before the first backward. Worked out when it is first asked for."""
        if self._error is None and self._adjoint is not None:
            self._error = self._estimate(self._adjoint)
        return self._error

    @property
    def spoiled(self) -> bool:
        """Whether the forward solve met samples with values that are not finite or not valid."""
        return self._spoiled

    def note_forward(self, residual: Tensor, spoiled: bool) -> None:
        """Called by the forward solve."""
        self._forward = residual if self._forward is None else self._forward
        self._spoiled = self._spoiled or spoiled

    def note_adjoint(self, v: Tensor, modulus: Tensor, answer: Linear) -> None:
        """Called by the adjoint solve of (I − J)ᵀ w = v."""
        if self._adjoint is None:
            sizes = (norms(v), norms(answer.w))
            self._adjoint = Adjoint(*sizes, modulus, answer.residual, answer.steps, answer.converged)

    @torch.no_grad()
    def _estimate(self, adjoint: Adjoint) -> GradientError:
        size, modulus, residual = adjoint.size, adjoint.modulus, adjoint.residual
        gain = torch.where(size > 0, adjoint.length / size, 1.0).clamp_min(torch.finfo(size.dtype).tiny)
        amplification = torch.where(modulus > 0, 1.0 / modulus, gain.clamp_min(1.0))
        forward = self._forward
        if forward is None or forward.shape != residual.shape:  # inside vmap the two may be folded differently
            forward = torch.zeros_like(residual)
        estimate = amplification * (residual / gain + forward)
        return GradientError(residual, adjoint.steps, adjoint.solved, estimate)
