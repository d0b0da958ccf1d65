"""Averaging iterations: of all fixed points of a nonexpansive map T they pick the one that minimizes ω.

z_{k+1} = β_k S_k(z_k) + (1 − β_k) T(z_k), S_k a contraction that pulls toward the minimizer of ω, β_k → 0, Σβ_k = ∞.
They select among *states*: use them only where the state is the variable. Sublinear, so that what they find is polished
elsewhere. Source of the viscosity principle: Moudafi 2000; Xu, *Viscosity approximation methods*, 2004.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.descent import Map
from opteq_cvx.errors import InputError, message

Watch = Callable[[int, Tensor], None]
"""watch(k, z_k): sees every iterate."""


@dataclass(frozen=True, slots=True)
class Second:
    """ω(z) = ½zᵀΩz + ωᵀz per sample: its gradient, and m ≤ λ_min(Ω), L ≥ λ_max(Ω), (1|B,) each."""

    gradient: Map
    lower: Tensor
    upper: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragingMethod(ABC):
    """How β_k and S_k are chosen; `steps` of it precede the polish."""

    steps: int = 500

    def __post_init__(self) -> None:
        if self.steps < 1:
            found = f"{type(self).__name__}(steps={self.steps})"
            raise InputError(message(found, "a positive number of steps", "pass e.g. steps=500"))

    @abstractmethod
    def pull(self, k: int, z: Tensor, second: Second) -> tuple[Tensor, Tensor | float]:
        """(S_k(z), β_k) for k = 1, 2, …; β_k is a number or (1|B, 1)."""

    @torch.no_grad()
    def run(self, advance: Map, second: Second, z: Tensor, watch: Watch | None = None) -> Tensor:
        """z after `steps` iterations from z (B, d); `advance` is T."""
        for k in range(1, self.steps + 1):
            image, (target, beta) = advance(z), self.pull(k, z, second)
            z = image + beta * (target - image)
            if watch is not None:
                watch(k, z)
        return z


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchoring(AveragingMethod):
    """Halpern's iteration: S(z) = p, the minimizer of ω = ½m‖z − p‖², β_k = 1/(k + 1).

    The limit is the projection of p on Fix T; ‖z_k − T(z_k)‖ = O(1/k).
    Source: Halpern 1967; Lieder, *On the convergence rate of the Halpern-iteration*, Optim. Lett. 15, 2021.
    """

    @override
    def pull(self, k: int, z: Tensor, second: Second) -> tuple[Tensor, Tensor | float]:
        scale = second.upper[:, None]
        return z - second.gradient(z) / scale, 1.0 / (k + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BiGSAM(AveragingMethod):
    """S(z) = z − s∇ω(z), s = 2/(m + L), β_k = min(2γ/(k(1 − κ)), 1), κ = 1 − sm: ω strongly convex and smooth.

    The limit is argmin_{Fix T} ω; the inner objective falls as O(1/k).
    Source: Sabach, Shtern, *A first order method for solving convex bilevel optimization problems*, SIAM J. Optim. 27,
    2017, section 3.
    """

    gamma: float = 1.0

    @override
    def __post_init__(self) -> None:
        AveragingMethod.__post_init__(self)
        if not 0 < self.gamma <= 1:
            raise InputError(message(f"BiGSAM(gamma={self.gamma})", "a number in (0, 1]", "leave it out for 1"))

    @override
    def pull(self, k: int, z: Tensor, second: Second) -> tuple[Tensor, Tensor | float]:
        s = 2.0 / (second.lower + second.upper)
        beta = (2.0 * self.gamma / (k * s * second.lower)).clamp(max=1.0)
        return z - s[:, None] * second.gradient(z), beta[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialAveraging(AveragingMethod):
    """S_k(z) = z − s(∇ω(z) + λ_k z), s = 1/(L + 1), β_k = ½k^(−½), λ_k = k^(−0.3): ω merely convex and smooth.

    The limit is the point of least norm among the minimizers of ω over Fix T. β_k/λ_k → 0 and Σβ_kλ_k = ∞ let the
    vanishing Tikhonov term decide the ties that ω leaves. Slow where ω is nearly flat along Fix T.
    Source: Xu 2004, theorem 3.1 (viscosity); Cominetti, *Coupling the proximal point algorithm with approximation
    methods*, 1997 (vanishing regularization).
    """

    @override
    def pull(self, k: int, z: Tensor, second: Second) -> tuple[Tensor, Tensor | float]:
        s = 1.0 / (second.upper[:, None] + 1.0)
        return z - s * (second.gradient(z) + k**-0.3 * z), 0.5 * k**-0.5
