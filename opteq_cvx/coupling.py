"""Priors that couple the samples of a batch: dependence between features, measured over the batch.

Not convex, and not certified: they enter as a gradient step of the fixed-point map, in training only. Their strength is
per sample: the layer looks for a stationary point of Σ_b F_b(u_b) + B·λ·R(U), U the batch.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from opteq_cvx.errors import InputError, message
from opteq_cvx.ir.frozen import Frozen

Kernel = Literal["linear", "gaussian"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HSIC(Frozen):
    """The Hilbert–Schmidt independence criterion, tr(K H L H)/(B − 1)², H = I − 11ᵀ/B.

    Between two variables with `between=("u", "v")`. Without it between every two entries of the layer's variables with
    linear kernels, ‖offdiag(UᵀHU)‖²_F/(B − 1)²: a squared covariance for each pair.

    Args:
        strength: λ > 0.
        between: the names of two variables.
        kernel: of both variables; Gaussian ones exp(−‖a − b‖²/(2s²)) have s = `bandwidth`.

    Source: Gretton, Bousquet, Smola, Schölkopf, *Measuring statistical dependence with Hilbert–Schmidt norms*, 2005.
    """

    strength: float
    between: tuple[str, str] | None = None
    kernel: Kernel = "linear"
    bandwidth: float = 1.0

    def __post_init__(self) -> None:
        if not (self.strength > 0 and self.bandwidth > 0):
            found = f"HSIC(strength={self.strength}, bandwidth={self.bandwidth})"
            raise InputError(message(found, "positive numbers", "pass e.g. strength=0.1"))
        if self.kernel not in ("linear", "gaussian") or (self.kernel != "linear" and self.between is None):
            found = f"HSIC(kernel={self.kernel!r}, between={self.between})"
            raise InputError(message(found, '"linear", or "gaussian" between two variables', "name two variables"))

    def value(self, parts: dict[str, Tensor], mask: Tensor) -> Tensor:
        """R(U) of the samples with mask 1; `parts` maps variables to (B, n_v), `mask` is (B,)."""
        count = mask.sum().clamp_min(2.0)
        if self.between is None:
            centered = _center(torch.cat(list(parts.values()), dim=1), mask, count)
            covariance = centered.mT @ centered / (count - 1.0)
            off = covariance - torch.diag_embed(covariance.diagonal())
            return (off * off).sum()
        first, second = (parts[name] for name in self.between)
        if self.kernel == "linear":
            cross = _center(first, mask, count).mT @ _center(second, mask, count)
            return (cross * cross).sum() / (count - 1.0) ** 2
        k, l = (_doubly(self._gram(x), mask, count) for x in (first, second))
        return (k * l).sum() / (count - 1.0) ** 2

    def _gram(self, x: Tensor) -> Tensor:
        squares = (x.unsqueeze(1) - x.unsqueeze(0)).square().sum(-1)
        return torch.exp(-squares / (2.0 * self.bandwidth**2))


def _center(x: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """HX on the samples of the mask, 0 elsewhere."""
    kept = mask[:, None] * x
    return mask[:, None] * (kept - kept.sum(0, keepdim=True) / count)


def _doubly(k: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """H K H on the samples of the mask."""
    return _center(_center(k * mask[None], mask, count).mT, mask, count)
