"""The write-once slot that receives the gradient's error estimate during backward."""

from dataclasses import dataclass

import torch
from torch import Tensor


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


class GradientRecord:
    """Filled by the first backward of one call; later ones (second order, another loss) leave it alone."""

    def __init__(self) -> None:
        self._error: GradientError | None = None
        self._forward: Tensor | None = None
        self._spoiled = False

    @property
    def error(self) -> GradientError | None:
        """The estimate; None before the first backward."""
        return self._error

    @property
    def spoiled(self) -> bool:
        """Whether the forward solve met samples with values that are not finite or not valid."""
        return self._spoiled

    def note_forward(self, residual: Tensor, spoiled: bool) -> None:
        """Called by the forward solve."""
        self._forward = residual if self._forward is None else self._forward
        self._spoiled = self._spoiled or spoiled

    def note_adjoint(
        self, v: Tensor, w: Tensor, modulus: Tensor, residual: Tensor, steps: Tensor, solved: Tensor
    ) -> None:
        """Called by the adjoint solve; `modulus` (1|B,) is NaN or 0 where nothing is certified."""
        if self._error is not None:
            return
        size, length = torch.linalg.vector_norm(v, dim=1), torch.linalg.vector_norm(w, dim=1)
        gain = torch.where(size > 0, length / size, 1.0).clamp_min(torch.finfo(v.dtype).tiny)
        amplification = torch.where(modulus > 0, 1.0 / modulus, gain.clamp_min(1.0))
        known = self._forward is not None and self._forward.shape == residual.shape
        forward = self._forward if known and self._forward is not None else torch.zeros_like(residual)
        self._error = GradientError(residual, steps, solved, amplification * (residual / gain + forward))
