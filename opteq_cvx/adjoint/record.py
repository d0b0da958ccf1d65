"""The write-once slot that receives the gradient's error estimate during backward."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.adjoint.krylov.contract import Linear, norms
from opteq_cvx.errors import GradientWarning, message
from opteq_cvx.maps.peek import known_true


@dataclass(frozen=True, slots=True)
class GradientError:
    """Per sample (B,), first order.

    residual: ‖v − (I − J)ᵀw‖ / ‖v‖ of the adjoint system.
    steps: of the linear solver.
    solved: whether that solver met its tolerance; False also where the system is singular and inconsistent.
    estimate: relative error of w, hence of the gradient: (adjoint residual·‖v‖/‖w‖ + forward residual) / μ, with μ
        the certified modulus. Where none is certified the forward residual is taken to grow by ‖w‖/‖v‖ (at least 1),
        the adjoint's by the margin that its solve left for that. An estimate, not a bound.
    certified: of equilibrium propagation: no active set changes between the nudged solutions, so that their difference
        is exact; None for other adjoints. There `residual` is the departure of their middle from the solution,
        relative to half their distance, and `steps` those of the nudged solves.
    """

    residual: Tensor
    steps: Tensor
    solved: Tensor
    estimate: Tensor
    certified: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Adjoint:
    """What the adjoint solve leaves: ‖v‖, ‖w‖, the modulus (1|B,; NaN or 0 where unknown), and its own report.

    `allowance` (1|B,) is how much the residual is taken to grow on its way to the gradient where no modulus is known.
    """

    size: Tensor
    length: Tensor
    modulus: Tensor
    allowance: Tensor
    residual: Tensor
    steps: Tensor
    solved: Tensor


class GradientRecord:
    """Filled by the first backward of one call; later ones (second order, another loss) leave it alone.

    Args:
        limit: warn where an estimate is larger, when it is filled; None never warns.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
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

    def note_adjoint(self, v: Tensor, modulus: Tensor, answer: Linear, allowance: Tensor) -> None:
        """Called by the adjoint solve of (I − J)ᵀ w = v."""
        if self._adjoint is None:
            sizes = (norms(v), norms(answer.w))
            self._adjoint = Adjoint(*sizes, modulus, allowance, answer.residual, answer.steps, answer.converged)
            if not self._fine(self._adjoint):
                self._warn(sizes[0] > 0)

    def note_error(self, error: GradientError, asked: Tensor) -> None:
        """Called by modes that estimate the error themselves; `asked` (B,) are the samples with a cotangent."""
        if self._error is None:
            self._error = error
            self._warn(asked)

    def _warn(self, asked: Tensor) -> None:
        """One warning for the gradients that were asked for and whose estimate exceeds the limit."""
        error = self.error
        if self.limit is None or error is None:
            return
        large = ~(error.estimate <= self.limit) & asked
        if not bool(large.any()):
            return
        count, worst = (
            int(large.sum()),
            float(torch.where(error.estimate.isnan(), torch.inf, error.estimate)[large].max()),
        )
        why = "the accuracy of the solves"
        if bool((large & ~error.solved).any()):
            why = (
                "adjoint systems that are singular or unsolved"
                if error.certified is None
                else "active sets that change"
            )
        found = f"{count} of {large.numel()} gradients may be off by a relative {worst:.1e}, by {why}"
        fix = "tighten tolerance, raise max_steps, or, for degenerate programs, compile with smoothing=Tikhonov(...)"
        warnings.warn(message(found, f"at most {self.limit:.1e}", fix), GradientWarning, stacklevel=2)

    @torch.no_grad()
    def _fine(self, adjoint: Adjoint) -> bool:
        """Whether certified moduli show, in one look, that all estimates are within the limit; False says nothing."""
        forward, limit = self._forward, self.limit
        if limit is None or forward is None or forward.shape != adjoint.residual.shape:
            return False
        estimate = (adjoint.size / adjoint.length * adjoint.residual + forward).div_(adjoint.modulus)
        return known_true((estimate <= limit).logical_and_(adjoint.modulus > 0))  # False for NaN

    @torch.no_grad()
    def _estimate(self, adjoint: Adjoint) -> GradientError:
        size, modulus, residual = adjoint.size, adjoint.modulus, adjoint.residual
        gain = torch.where(size > 0, adjoint.length / size, 1.0).clamp_min(torch.finfo(size.dtype).tiny)
        amplification = torch.where(modulus > 0, 1.0 / modulus, gain.clamp_min(1.0))
        forward = self._forward
        if forward is None or forward.shape != residual.shape:  # inside vmap the two may be folded differently
            forward = torch.zeros_like(residual)
        growth = torch.where(modulus > 0, 1.0 / gain, torch.maximum(adjoint.allowance / amplification, 1.0 / gain))
        estimate = amplification * (growth * residual + forward)
        return GradientError(residual, adjoint.steps, adjoint.solved, estimate)
