"""The Jacobian J = ∂T/∂z at a point, as the adjoint solvers see it: products with J and Jᵀ, one matrix per sample.

Tensors here carry no gradient: the adjoint's own derivatives go through `Splitting.step`, not through these objects.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from typing_extensions import override

Product = Callable[[Tensor], Tensor]
"""(B, d) → (B, d), linear, sample by sample."""


class Linearization(ABC):
    """J at one state per sample."""

    @abstractmethod
    def matvec(self, x: Tensor) -> Tensor:
        """J x, (B, d) → (B, d)."""

    @abstractmethod
    def rmatvec(self, x: Tensor) -> Tensor:
        """Jᵀ x, (B, d) → (B, d)."""

    def dense(self, batch: int, like: Tensor) -> Tensor:
        """J as (B, d, d), by d products with Jᵀ; override where it is known."""
        d = like.shape[-1]
        identity = torch.eye(d, dtype=like.dtype, device=like.device)
        rows = [self.rmatvec(identity[i].expand(batch, d)) for i in range(d)]
        return torch.stack(rows, dim=1)


class AutogradLinearization(Linearization):
    """J by vector-Jacobian products of a map, the graph built once; J x is the product's own transpose."""

    def __init__(self, function: Product, z: Tensor) -> None:
        with torch.enable_grad():
            self.point = z.detach().requires_grad_()
            self.image = function(self.point)
        self.constant = not self.image.requires_grad
        self.tangent: tuple[Tensor, Tensor] | None = None

    @override
    def rmatvec(self, x: Tensor) -> Tensor:
        if self.constant:
            return torch.zeros_like(x)
        (product,) = torch.autograd.grad(self.image, self.point, x, retain_graph=True, materialize_grads=True)
        return product

    @override
    def matvec(self, x: Tensor) -> Tensor:
        if self.constant:
            return torch.zeros_like(x)
        if self.tangent is None:
            with torch.enable_grad():
                dual = torch.zeros_like(self.image).requires_grad_()
                (pulled,) = torch.autograd.grad(self.image, self.point, dual, create_graph=True, materialize_grads=True)
            self.tangent = (dual, pulled)
        dual, pulled = self.tangent
        if not pulled.requires_grad:
            return torch.zeros_like(x)
        (product,) = torch.autograd.grad(pulled, dual, x, retain_graph=True, materialize_grads=True)
        return product


class SymmetricLinearization(Linearization):
    """J = D M, D symmetric positive semidefinite (a prox Jacobian), M symmetric: the form of forward-backward maps.

    Args:
        matrix: M as (1|B, d, d), or None and then `apply_matrix` gives x ↦ M x.
        diagonal: D as its diagonal (B, d), or None and then `apply_diagonal` gives x ↦ D x.
        projector: whether D² = D (entries 0 and 1 where diagonal), as for relu, box and soft threshold.

    The adjoint system (I − M D) w = v is symmetric positive definite in the semi-inner product ⟨x, D y⟩ when
    λ_max(D^½ M D^½) < 1, so conjugate gradients solve it; only D w enters gradients, and w = v + M D w.
    Source: D(I − MD) = D − DMD is symmetric positive semidefinite; Hestenes, Stiefel 1952.
    """

    def __init__(
        self,
        *,
        matrix: Tensor | None = None,
        apply_matrix: Product | None = None,
        diagonal: Tensor | None = None,
        apply_diagonal: Product | None = None,
        projector: bool = False,
    ) -> None:
        assert (matrix is None) != (apply_matrix is None)
        assert (diagonal is None) != (apply_diagonal is None)
        self.matrix, self.diagonal, self.projector = matrix, diagonal, projector
        self._apply_matrix, self._apply_diagonal = apply_matrix, apply_diagonal

    def apply_m(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """M x; `out` is a buffer that may be used for the result."""
        if self._apply_matrix is not None:
            return self._apply_matrix(x)
        assert self.matrix is not None
        if self.matrix.shape[0] == 1:
            return torch.mm(x, self.matrix[0], out=out)
        return torch.bmm(x[:, None], self.matrix).squeeze(1)

    def apply_d(self, x: Tensor) -> Tensor:
        """D x."""
        if self._apply_diagonal is not None:
            return self._apply_diagonal(x)
        assert self.diagonal is not None
        return self.diagonal * x

    @override
    def matvec(self, x: Tensor) -> Tensor:
        return self.apply_d(self.apply_m(x))

    @override
    def rmatvec(self, x: Tensor) -> Tensor:
        return self.apply_m(self.apply_d(x))

    @override
    def dense(self, batch: int, like: Tensor) -> Tensor:
        if self.matrix is None or self.diagonal is None:
            return super().dense(batch, like)
        return self.diagonal[:, :, None] * self.matrix


class BlockDiagonal(Linearization):
    """Independent parts of one length, side by side: each may be solved alone."""

    def __init__(self, parts: Sequence[Linearization], length: int) -> None:
        self.parts, self.length = tuple(parts), length

    @override
    def matvec(self, x: Tensor) -> Tensor:
        pieces = zip(self.parts, x.split(self.length, dim=1), strict=True)
        return torch.cat([part.matvec(piece) for part, piece in pieces], dim=1)

    @override
    def rmatvec(self, x: Tensor) -> Tensor:
        pieces = zip(self.parts, x.split(self.length, dim=1), strict=True)
        return torch.cat([part.rmatvec(piece) for part, piece in pieces], dim=1)

    @override
    def dense(self, batch: int, like: Tensor) -> Tensor:
        pieces = zip(self.parts, like.split(self.length, dim=1), strict=True)
        blocks = [part.dense(batch, piece) for part, piece in pieces]
        out = like.new_zeros(batch, like.shape[1], like.shape[1])
        for i, block in enumerate(blocks):
            at = slice(i * self.length, (i + 1) * self.length)
            out[:, at, at] = block
        return out
