"""Functions of eigenvalues and of singular values: prox lifting, with derivatives that are safe at ties.

For X = U diag(x) Uᵀ, x = p(λ) with p symmetric under permutations, dX = U(Γ∘(UᵀHU) + diag(J diag(UᵀHU)))Uᵀ
with J the Jacobian of p and Γ_ij = (x_i − x_j)/(λ_i − λ_j) off the diagonal, J_ii − J_ij at ties
(Daleckii-Krein). Second derivatives go through the decompositions: exact away from ties, NaN for a matrix
with a tie.
Source: Lewis, Sendov, *Nonsmooth analysis of singular values*, 2005.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.roots import Implicit

Lifted = Callable[..., Tensor]
"""(λ, *parameters) to x along the last axis; parameters have the batch axes of λ and one more."""


def symmetric_part(v: Tensor) -> Tensor:
    """(V + Vᵀ)/2."""
    return 0.5 * (v + v.mT)


def finite_or_zero(v: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices with those that are not finite replaced by 0, and NaN for those, else 0: LAPACK refuses them."""
    good = v.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    return torch.where(good, v, 0.0), torch.where(good, 0.0, torch.nan).to(v.dtype)


def eigenvalues(v: Tensor) -> Tensor:
    """The eigenvalues of the symmetric part, ascending, NaN for a matrix that is not finite."""
    safe, flaw = finite_or_zero(v)
    found: Tensor = torch.linalg.eigvalsh(symmetric_part(safe))
    return found + flaw[..., 0]


def singular_values(v: Tensor) -> Tensor:
    """The singular values, descending, NaN for a matrix that is not finite."""
    safe, flaw = finite_or_zero(v)
    found: Tensor = torch.linalg.svdvals(safe)
    return found + flaw[..., 0]


@dataclass(frozen=True, slots=True)
class OfEigenvalues(Implicit):
    """V ↦ U diag(p(λ)) Uᵀ for the symmetric part U diag(λ) Uᵀ of V."""

    p: Lifted

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, flaw = finite_or_zero(inputs[0])
        values, vectors = torch.linalg.eigh(symmetric_part(v))
        x = (vectors * self.p(values, *inputs[1:]).unsqueeze(-2)) @ vectors.mT
        return symmetric_part(x) + flaw

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        vectors, slopes, by_parameters, gamma = self._parts(inputs)
        h = vectors.mT @ symmetric_part(tangents[0]) @ vectors
        diagonal = _times(slopes, h.diagonal(dim1=-2, dim2=-1))
        diagonal = sum((_times(s, d) for s, d in zip(by_parameters, tangents[1:], strict=True)), diagonal)
        return vectors @ (gamma * h + torch.diag_embed(diagonal)) @ vectors.mT

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        vectors, slopes, by_parameters, gamma = self._parts(inputs)
        h = vectors.mT @ symmetric_part(grad) @ vectors
        diagonal = h.diagonal(dim1=-2, dim2=-1)
        back = vectors @ (gamma * h + torch.diag_embed(_times(slopes.mT, diagonal))) @ vectors.mT
        return back, *(_times(s.mT, diagonal) for s in by_parameters)

    def _parts(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        """U, J, the derivatives of p by its parameters, and Γ with a zero diagonal."""
        v, _ = finite_or_zero(inputs[0])
        values, vectors = _Eigen.apply(symmetric_part(v))  # type: ignore[no-untyped-call]
        x = self.p(values, *inputs[1:])
        slopes, *by_parameters = jacobians(self.p, values, *inputs[1:])
        return vectors, slopes, by_parameters, _quotients(values, x, slopes)


@dataclass(frozen=True, slots=True)
class OfSingularValues(Implicit):
    """V ↦ U diag(p(σ)) Wᵀ for V = U diag(σ) Wᵀ; p keeps the order of nonnegative numbers."""

    p: Lifted

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, flaw = finite_or_zero(inputs[0])
        left, values, right = torch.linalg.svd(v, full_matrices=False)
        x: Tensor = (left * self.p(values, *inputs[1:]).unsqueeze(-2)) @ right
        return x + flaw

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        parts = self._parts(inputs)
        left, right, slopes, by_parameters = parts[:4]
        h = left.mT @ tangents[0] @ right
        diagonal = _times(slopes, h.diagonal(dim1=-2, dim2=-1))
        diagonal = sum((_times(s, d) for s, d in zip(by_parameters, tangents[1:], strict=True)), diagonal)
        return self._outer(parts, tangents[0], h, diagonal)

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        parts = self._parts(inputs)
        left, right, slopes, by_parameters = parts[:4]
        h = left.mT @ grad @ right
        diagonal = h.diagonal(dim1=-2, dim2=-1)
        back = self._outer(parts, grad, h, _times(slopes.mT, diagonal))
        return back, *(_times(s.mT, diagonal) for s in by_parameters)

    def _parts(self, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """U, W, J, the derivatives by the parameters, Γ of the symmetric and the skew part, and x/σ."""
        v, _ = finite_or_zero(inputs[0])
        left, values, right = _Singular.apply(v)  # type: ignore[no-untyped-call]
        x = self.p(values, *inputs[1:])
        slopes, *by_parameters = jacobians(self.p, values, *inputs[1:])
        total = values.unsqueeze(-1) + values.unsqueeze(-2)
        own = slopes.diagonal(dim1=-2, dim2=-1)
        some = total > _tie(values)
        skew = (x.unsqueeze(-1) + x.unsqueeze(-2)) / torch.where(some, total, 1.0)
        skew = torch.where(some, skew, 0.5 * (own.unsqueeze(-1) + own.unsqueeze(-2)))
        large = values > _tie(values)[..., 0]
        ratio = torch.where(large, x / torch.where(large, values, 1.0), own)
        return left, right, slopes, by_parameters, _quotients(values, x, slopes), skew, ratio

    @staticmethod
    def _outer(parts: tuple[Any, ...], h: Tensor, inner: Tensor, diagonal: Tensor) -> Tensor:
        left, right, _, _, even, odd, ratio = parts
        core = even * symmetric_part(inner) + odd * 0.5 * (inner - inner.mT) + torch.diag_embed(diagonal)
        below = (h @ right - left @ inner) * ratio.unsqueeze(-2)  # what leaves the span of U
        beside = (h.mT @ left - right @ inner.mT) * ratio.unsqueeze(-2)  # and that of W
        out: Tensor = left @ core @ right.mT + below @ right.mT + left @ beside.mT
        return out


def jacobians(p: Lifted, values: Tensor, *parameters: Tensor) -> list[Tensor]:
    """∂p/∂λ (*batch, n, n) and ∂p/∂parameter (*batch, n, k): all rows by one pullback."""
    n = values.shape[-1]
    rows = [a.expand(n, *a.shape) for a in (values, *parameters)]
    pulled: Any = torch.func.vjp(p, *rows)
    x, pull = pulled
    unit = torch.eye(n, dtype=values.dtype, device=values.device)
    unit = unit.reshape(n, *(1,) * (values.ndim - 1), n).expand_as(x)
    return [g.movedim(0, -2) for g in pull(unit)]


def _tie(values: Tensor) -> Tensor:
    """The gap (*batch, 1, 1) below which two values count as equal."""
    size = values.abs().amax(-1, keepdim=True).unsqueeze(-1).detach()
    return size * float(torch.finfo(values.dtype).eps ** 0.5)


def _quotients(values: Tensor, x: Tensor, slopes: Tensor) -> Tensor:
    """Γ with a zero diagonal."""
    gap = values.unsqueeze(-1) - values.unsqueeze(-2)
    apart = gap.abs() > _tie(values)
    divided = (x.unsqueeze(-1) - x.unsqueeze(-2)) / torch.where(apart, gap, 1.0)
    at_tie = symmetric_part(slopes.diagonal(dim1=-2, dim2=-1).unsqueeze(-1) - slopes)
    gamma = torch.where(apart, divided, at_tie)
    return gamma - torch.diag_embed(gamma.diagonal(dim1=-2, dim2=-1))


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _inverse(gap: Tensor, tie: Tensor) -> Tensor:
    """1/gap; NaN at ties, where a derivative of vectors means nothing: never a number that is silently wrong."""
    apart = gap.abs() > tie
    return torch.where(apart, 1.0 / torch.where(apart, gap, 1.0), torch.nan)


def _inverse_gaps(values: Tensor, tie: Tensor) -> Tensor:
    """1/(λ_j − λ_i) off the diagonal, 0 on it."""
    inverse = _inverse(values.unsqueeze(-2) - values.unsqueeze(-1), tie)
    diagonal = torch.eye(values.shape[-1], dtype=torch.bool, device=values.device)
    return torch.where(diagonal, 0.0, inverse)


class _Eigen(torch.autograd.Function):
    """λ, U of a symmetric matrix."""

    generate_vmap_rule = True

    @staticmethod
    @override
    def forward(v: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(v)
        return values, vectors

    @staticmethod
    @override
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*output)
        ctx.save_for_forward(*output)

    @staticmethod
    @override
    def backward(ctx: Any, by_values: Tensor, by_vectors: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        inverse = _inverse_gaps(values, _tie(values))
        inner = inverse * (vectors.mT @ by_vectors) + torch.diag_embed(by_values)
        return symmetric_part(vectors @ inner @ vectors.mT)

    @staticmethod
    @override
    def jvp(ctx: Any, h: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = ctx.saved_tensors
        inner = vectors.mT @ h @ vectors
        inverse = _inverse_gaps(values, _tie(values))
        return inner.diagonal(dim1=-2, dim2=-1), vectors @ (inverse * inner)


class _Singular(torch.autograd.Function):
    """U, σ, W of a matrix."""

    generate_vmap_rule = True

    @staticmethod
    @override
    def forward(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, values, right = torch.linalg.svd(v, full_matrices=False)
        return left, values, right.mT

    @staticmethod
    @override
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*output)

    @staticmethod
    @override
    def backward(ctx: Any, by_left: Tensor, by_values: Tensor, by_right: Tensor) -> Tensor:
        left, values, right = ctx.saved_tensors
        squares, tie = values**2, _tie(values)
        inverse = _inverse_gaps(squares, tie * values.amax(-1)[..., None, None])
        a, b = inverse * (left.mT @ by_left), inverse * (right.mT @ by_right)
        inner = (a + a.mT) * values.unsqueeze(-2) + values.unsqueeze(-1) * (b + b.mT)
        inner = inner + torch.diag_embed(by_values)
        one = _inverse(values, tie[..., 0]).unsqueeze(-2)
        below = (by_left - left @ (left.mT @ by_left)) * one
        beside = (by_right - right @ (right.mT @ by_right)) * one
        out: Tensor = left @ inner @ right.mT + below @ right.mT + left @ beside.mT
        return out
