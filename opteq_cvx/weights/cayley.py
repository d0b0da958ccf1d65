"""Cayley: weights with orthonormal columns (rows where wide), so ‖W‖₂ = 1."""

import numpy as np
import scipy.linalg
import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Array
from opteq_cvx.weights.part import Part

TURN = 1e-2
"""How far, in radians, rotations by π are moved back: Cayley's map does not reach the eigenvalue −1."""

SINGULAR = 1e-5
"""Smallest singular value of ½(I + W₁) that counts as reached."""


class Cayley(Part):
    """W = [2X − I; −2VX] with X = (I + A)⁻¹, A = U − Uᵀ + VᵀV, [U; V] the free matrix; transposed where wide.

    Square: W = (I − A)(I + A)⁻¹, the rotations without eigenvalue −1. One QR, the identity on
    orthonormal matrices to first order along them, removes the rounding of large A. O(mn²).

    Source: Trockman, Kolter, arXiv 2104.07167, section 4 (rectangular form).
    """

    @override
    def forward(self, raw: Tensor) -> Tensor:
        free = raw.double()
        wide = free.shape[-2] < free.shape[-1]
        free = free.mT if wide else free
        n = free.shape[-1]
        eye = torch.eye(n, dtype=free.dtype, device=free.device)
        U, V = free[..., :n, :], free[..., n:, :]
        X = torch.linalg.inv(eye + (U - U.mT) + V.mT @ V)
        Q, R = torch.linalg.qr(torch.cat([2.0 * X - eye, -2.0 * V @ X], dim=-2))
        sign = torch.where(R.detach().diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(Q.dtype)
        W: Tensor = Q * sign[..., None, :]
        return (W.mT if wide else W).to(raw.dtype)

    @override
    def right_inverse(self, value: Tensor) -> Tensor:
        wide = value.shape[-2] < value.shape[-1]
        W = value.mT if wide else value
        eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
        inverse = torch.linalg.inv(0.5 * (W[: W.shape[-1]] + eye))
        K = 0.5 * (inverse - inverse.mT)
        free = torch.cat([0.5 * K, -0.5 * W[W.shape[-1] :] @ inverse])
        return free.mT if wide else free

    @override
    def project(self, value: Tensor) -> Tensor:
        U, s, Vh = torch.linalg.svd(value, full_matrices=False)
        return value if float((s - 1).abs().max()) < 1e-12 else U @ Vh

    @override
    def inside(self, value: Tensor) -> Tensor:
        wide = value.shape[-2] < value.shape[-1]
        W = value.mT if wide else value
        n = W.shape[-1]
        top = 0.5 * (W[:n] + torch.eye(n, dtype=W.dtype, device=W.device))
        if float(torch.linalg.svdvals(top).min()) > SINGULAR:
            return value
        moved = torch.as_tensor(_turn_back(_complete(W.cpu().numpy()))[:, :n], device=W.device)
        return moved.mT if wide else moved

    @override
    def polish(self, value: Tensor) -> Tensor:
        return self.project(value)


def _complete(W: Array) -> Array:
    """A square orthogonal matrix that begins with the columns of W, a rotation where W is not square."""
    n = W.shape[1]
    Q: Array = np.linalg.qr(W, mode="complete").Q
    Q[:, :n] = W
    if Q.shape[0] > n and np.linalg.det(Q) < 0:
        Q[:, -1] *= -1
    return Q


def _turn_back(Q: Array) -> Array:
    """Q with its rotation angles limited to π − TURN; an odd eigenvalue −1 (a reflection) becomes 1."""
    T, Z = scipy.linalg.schur(Q, output="real")
    n, flips, i = Q.shape[0], [], 0
    D = np.eye(n)
    while i < n:
        if i + 1 < n and abs(T[i + 1, i]) > 1e-8:
            angle = np.arctan2(T[i + 1, i] - T[i, i + 1], T[i, i] + T[i + 1, i + 1])
            _rotate(D, i, i + 1, float(np.clip(angle, TURN - np.pi, np.pi - TURN)))
            i += 2
        else:
            if T[i, i] < 0:
                flips.append(i)
            i += 1
    for j, k in zip(flips[::2], flips[1::2], strict=False):
        _rotate(D, j, k, np.pi - TURN)
    return np.asarray(Z @ D @ Z.T, dtype=np.float64)


def _rotate(D: Array, i: int, j: int, angle: float) -> None:
    """Write the rotation by `angle` in the plane (i, j) into D."""
    c, s = np.cos(angle), np.sin(angle)
    D[i, i], D[i, j], D[j, i], D[j, j] = c, -s, s, c
