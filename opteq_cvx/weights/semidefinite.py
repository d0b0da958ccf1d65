"""Semidefinite: PSD and NSD weights."""

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.weights.part import Part, symmetrized

FLOOR = 1e-8
"""Smallest eigenvalue that a singular matrix is given, relative to the largest: L = 0 has no gradient."""

ZERO = 1e-4
"""The same for the zero matrix, in absolute terms."""


class Semidefinite(Part):
    """S = sign · LLᵀ with a square L.

    Source: Lezcano-Casado, *Trivializations*, arXiv 1909.09501.
    """

    def __init__(self, *, sign: int) -> None:
        super().__init__()
        self.sign = sign

    @override
    def forward(self, raw: Tensor) -> Tensor:
        return self.sign * symmetrized(raw @ raw.mT)

    @override
    def right_inverse(self, value: Tensor) -> Tensor:
        return factor(self.sign * value)

    @override
    def project(self, value: Tensor) -> Tensor:
        return self.sign * clip_eigenvalues(self.sign * value)

    @override
    def inside(self, value: Tensor) -> Tensor:
        return self.sign * lift(self.sign * value)

    @override
    def polish(self, value: Tensor) -> Tensor:
        return self.project(value)


def factor(S: Tensor) -> Tensor:
    """L with LLᵀ = S for S ⪰ 0: the Cholesky factor, or the symmetric root where S is singular."""
    L: Tensor
    L, info = torch.linalg.cholesky_ex(S)
    if int(info) != 0:
        w, V = torch.linalg.eigh(S)
        L = (V * w.clamp(min=0.0).sqrt()) @ V.mT
    return L


def clip_eigenvalues(S: Tensor, upper: float = torch.inf) -> Tensor:
    """The nearest matrix with eigenvalues in [0, upper], so that rounding leaves no negative one."""
    S = symmetrized(S)
    if upper == torch.inf and _clearly_definite(S):
        return S
    w, V = torch.linalg.eigh(S)
    slack = 4 * S.shape[-1] * torch.finfo(S.dtype).eps * float(w.abs().max())
    if float(w.min()) >= slack and float(w.max()) <= upper:
        return S
    return symmetrized((V * w.clamp(min=min(slack, upper), max=upper)) @ V.mT)


def lift(S: Tensor, zero: float = ZERO) -> Tensor:
    """S ⪰ 0 with its zero eigenvalues raised to FLOOR · λ_max (to `zero` for the zero matrix)."""
    if _clearly_definite(S):
        return S
    w, V = torch.linalg.eigh(S)
    top = float(w.max())
    return symmetrized((V * w.clamp(min=FLOOR * top if top > 0 else zero)) @ V.mT)


def _clearly_definite(S: Tensor) -> bool:
    """Whether the smallest eigenvalue is positive beyond rounding, by Cholesky: cheaper than eigenvalues."""
    n = S.shape[-1]
    slack = 8 * n * torch.finfo(S.dtype).eps * S.diagonal().sum()
    return int(torch.linalg.cholesky_ex(S - slack * torch.eye(n, dtype=S.dtype, device=S.device))[1]) == 0
