"""Functions of eigenvalues and of singular values: prox lifting, with derivatives that are exact at ties.

For X = U diag(x) Uᵀ, x = p(λ) with p symmetric under permutations, dX = U(Γ∘(UᵀHU) + diag(J diag(UᵀHU)))Uᵀ
with J the Jacobian of p and Γ_ij = (x_i − x_j)/(λ_i − λ_j) off the diagonal, J_ii − J_ij at ties
(Daleckii-Krein). Second derivatives are in `spectral_second`, exact at ties too; third ones go through the
decompositions: exact away from ties, an `OrderError` at them.
Source: Lewis, Sendov, *Nonsmooth analysis of singular values*, 2005.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.primitives import underived
from opteq_cvx.atoms.roots import Implicit
from opteq_cvx.atoms.spectral_second import (
    Eigen,
    Lifted,
    directional,
    divided,
    jacobians,
    off_diagonal,
    second,
    slope,
    symmetric_part,
    times,
)


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
class _Along:
    """(λ, *θ, *dθ) to ∂p/∂θ dθ, a function of spectra itself."""

    p: Lifted

    def __call__(self, values: Tensor, *parameters: Tensor) -> Tensor:
        count = len(parameters) // 2
        given = parameters[:count]
        total = torch.zeros_like(values)
        for i in range(count):
            total = total + directional(
                lambda q, i=i: self.p(values, *given[:i], q, *given[i + 1 :]),  # type: ignore[misc]
                given[i],
                parameters[count + i],
            )
        return total


@dataclass(frozen=True, slots=True)
class Spectral(Implicit):
    """A function of spectra lifted to matrices; p is a gradient, as every prox is."""

    p: Lifted

    @abstractmethod
    def by_matrix(self, v: Tensor, h: Tensor, *parameters: Tensor) -> tuple[Tensor, list[Tensor]]:
        """DF(V)[H] and ⟨H, ∂F/∂θ⟩ for each parameter; their own derivatives are not used."""

    @abstractmethod
    def by_matrix_twice(self, v: Tensor, h: Tensor, k: Tensor, *parameters: Tensor) -> Tensor:
        """D²F(V)[H, K]."""

    @abstractmethod
    def matrix(self, v: Tensor, *parameters: Tensor) -> Tensor:
        """DF(V) as a matrix (*batch, mn, mn), entries of V in C order; its own derivatives are not used."""

    @property
    def along(self) -> Self:
        """(V, *θ, *dθ) to ∂F/∂θ dθ."""
        return replace(self, p=_Along(self.p))

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        v, *parameters = inputs
        pushed = _Derivative(self)(v, tangents[0], *parameters)
        return pushed + self.along(v, *parameters, *tangents[1:]) if parameters else pushed

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        v, *parameters = inputs
        if underived(*inputs, grad):
            back, rest = self.by_matrix(v, grad, *parameters)
            return back, *rest
        return _Derivative(self)(v, grad, *parameters), *_paired(self.along, (v,), parameters, grad)


def _paired(along: Implicit, first: tuple[Tensor, ...], parameters: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    """⟨grad, ∂/∂θ⟩ for each parameter, entry by entry, by functions of spectra: no derivative of vectors."""
    found = []
    for i, q in enumerate(parameters):
        entries = []
        for c in range(q.shape[-1]):
            zeros = [torch.zeros_like(other) for other in parameters]
            unit = torch.zeros_like(q)
            unit[..., c] = 1.0
            moved = along(*first, *parameters, *zeros[:i], unit, *zeros[i + 1 :])
            entries.append((grad * moved).sum((-2, -1)))
        found.append(torch.stack(entries, -1))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Derivative(Implicit):
    """(V, H, *θ) to DF(V)[H], linear and self-adjoint in H."""

    of: Spectral

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, h, *parameters = inputs
        return self.of.by_matrix(v, h, *parameters)[0]

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        v, h, *parameters = inputs
        pushed = self.of.by_matrix_twice(v, h, tangents[0], *parameters) + self(v, tangents[1], *parameters)
        return pushed + _Derivative(self.of.along)(v, h, *parameters, *tangents[2:]) if parameters else pushed

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        v, h, *parameters = inputs
        twice = self.of.by_matrix_twice(v, h, grad, *parameters)
        along = _Derivative(self.of.along)
        return twice, self(v, grad, *parameters), *_paired(along, (v, h), parameters, grad)


@dataclass(frozen=True, slots=True)
class OfEigenvalues(Spectral):
    """V ↦ U diag(p(λ)) Uᵀ for the symmetric part U diag(λ) Uᵀ of V."""

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, flaw = finite_or_zero(inputs[0])
        values, vectors = torch.linalg.eigh(symmetric_part(v))
        x = (vectors * self.p(values, *inputs[1:]).unsqueeze(-2)) @ vectors.mT
        return symmetric_part(x) + flaw

    @override
    def by_matrix(self, v: Tensor, h: Tensor, *parameters: Tensor) -> tuple[Tensor, list[Tensor]]:
        v, _ = finite_or_zero(v)
        values, vectors = torch.linalg.eigh(symmetric_part(v))
        slopes, *by_parameters = jacobians(self.p, values, *parameters)
        gamma, _ = _quotients(values, self.p(values, *parameters), slopes)
        h = vectors.mT @ symmetric_part(h) @ vectors
        diagonal = h.diagonal(dim1=-2, dim2=-1)
        moved = vectors @ (gamma * h + torch.diag_embed(times(slopes, diagonal))) @ vectors.mT
        return moved, [times(s.mT, diagonal) for s in by_parameters]

    @override
    def matrix(self, v: Tensor, *parameters: Tensor) -> Tensor:
        v, _ = finite_or_zero(v)
        values, vectors = torch.linalg.eigh(symmetric_part(v))
        slopes = slope(self.p, values, *parameters)
        half = 0.5 * _quotients(values, self.p(values, *parameters), slopes)[0]
        return _dense(vectors, vectors, half, half, slopes)

    @override
    def by_matrix_twice(self, v: Tensor, h: Tensor, k: Tensor, *parameters: Tensor) -> Tensor:
        v, _ = finite_or_zero(v)
        eigen = Eigen.apply(symmetric_part(v), 0)  # type: ignore[no-untyped-call]
        pair = symmetric_part(h), symmetric_part(k)
        return second(self.p, _quotients, v.shape[-1], eigen, pair, parameters)


@dataclass(frozen=True, slots=True)
class OfSingularValues(Spectral):
    """V ↦ U diag(p(σ)) Wᵀ for V = U diag(σ) Wᵀ; p keeps the order of nonnegative numbers."""

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, flaw = finite_or_zero(inputs[0])
        left, values, right = torch.linalg.svd(v, full_matrices=False)
        x: Tensor = (left * self.p(values, *inputs[1:]).unsqueeze(-2)) @ right
        return x + flaw

    @override
    def by_matrix(self, v: Tensor, h: Tensor, *parameters: Tensor) -> tuple[Tensor, list[Tensor]]:
        v, _ = finite_or_zero(v)
        left, values, rows = torch.linalg.svd(v, full_matrices=False)
        right = rows.mT
        slopes, *by_parameters = jacobians(self.p, values, *parameters)
        x = self.p(values, *parameters)
        even, _ = _quotients(values, x, slopes)
        odd, _, ratio, _ = _sums(values, x, slopes)
        inner = left.mT @ h @ right
        diagonal = inner.diagonal(dim1=-2, dim2=-1)
        core = even * symmetric_part(inner) + off_diagonal(odd) * 0.5 * (inner - inner.mT)
        core = core + torch.diag_embed(times(slopes, diagonal))
        below = (h @ right - left @ inner) * ratio.unsqueeze(-2)  # what leaves the span of U
        beside = (h.mT @ left - right @ inner.mT) * ratio.unsqueeze(-2)  # and that of W
        moved: Tensor = left @ core @ right.mT + below @ right.mT + left @ beside.mT
        return moved, [times(s.mT, diagonal) for s in by_parameters]

    @override
    def matrix(self, v: Tensor, *parameters: Tensor) -> Tensor:
        v, _ = finite_or_zero(v)
        left, values, rows = torch.linalg.svd(v, full_matrices=True)
        slopes, x = slope(self.p, values, *parameters), self.p(values, *parameters)
        even, _ = _quotients(values, x, slopes)
        odd, _, ratio, _ = _sums(values, x, slopes)
        n, odd = values.shape[-1], off_diagonal(odd)
        own = ratio.unsqueeze(-1).expand(*ratio.shape, v.shape[-1])  # what leaves the span of U or that of W
        own = own if v.shape[-1] >= v.shape[-2] else ratio.unsqueeze(-2).expand(*ratio.shape[:-1], *v.shape[-2:])
        own = own.clone()
        own[..., :n, :n] = 0.5 * (even + odd)
        return _dense(left, rows.mT, own, 0.5 * (even - odd), slopes)

    @override
    def by_matrix_twice(self, v: Tensor, h: Tensor, k: Tensor, *parameters: Tensor) -> Tensor:
        rows, columns = v.shape[-2:]
        v, h, k = (_dilated(a) for a in (finite_or_zero(v)[0], h, k))
        eigen = Eigen.apply(v, rows)  # type: ignore[no-untyped-call]
        twice = second(self.p, _dilated_quotients(abs(rows - columns)), min(rows, columns), eigen, (h, k), parameters)
        return twice[..., :rows, rows:]


def _dense(left: Tensor, right: Tensor, own: Tensor, other: Tensor, slopes: Tensor) -> Tensor:
    """H ↦ U(A∘G + B∘Gᵀ + diag(J diag G))Wᵀ with G = UᵀHW as a matrix (*batch, mn, mn), entries of H in C order.

    Args:
        left: U (*batch, m, m), orthogonal.
        right: W (*batch, n, n), orthogonal.
        own: A (*batch, m, n), with a zero diagonal.
        other: B (*batch, r, r), with a zero diagonal: of the leading block, r = min(m, n).
        slopes: J (*batch, r, r).
    """
    m, n, r = left.shape[-1], right.shape[-1], slopes.shape[-1]
    basis = (left[..., :, None, :, None] * right[..., None, :, None, :]).flatten(-4, -3)  # axes: entry of H, i, j
    core = basis * own.unsqueeze(-3)
    core[..., :r, :r] += basis[..., :r, :r].mT * other.unsqueeze(-3)
    diagonal = basis.diagonal(dim1=-2, dim2=-1)
    return basis.flatten(-2) @ core.reshape(*core.shape[:-2], m * n).mT + diagonal @ slopes @ diagonal.mT


def _dilated(v: Tensor) -> Tensor:
    """[[0, V], [Vᵀ, 0]], whose eigenvalues are ±σ and 0."""
    top = torch.cat([v.new_zeros(*v.shape[:-1], v.shape[-2]), v], -1)
    return torch.cat([top, torch.cat([v.mT, v.new_zeros(*v.mT.shape[:-1], v.shape[-1])], -1)], -2)


def _quotients(values: Tensor, x: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Γ with a zero diagonal, and where values coincide."""
    gap = values.unsqueeze(-1) - values.unsqueeze(-2)
    limit = symmetric_part(slopes.diagonal(dim1=-2, dim2=-1).unsqueeze(-1) - slopes)
    gamma, near = divided(x.unsqueeze(-1) - x.unsqueeze(-2), gap, limit, values)
    return off_diagonal(gamma), near


def _sums(values: Tensor, x: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x_i + x_j)/(σ_i + σ_j) and x/σ, each with where it is a limit at 0."""
    own = slopes.diagonal(dim1=-2, dim2=-1)
    total, limit = values.unsqueeze(-1) + values.unsqueeze(-2), 0.5 * (own.unsqueeze(-1) + own.unsqueeze(-2))
    odd, small = divided(x.unsqueeze(-1) + x.unsqueeze(-2), total, limit, values)
    ratio, zero = divided(x.unsqueeze(-2), values.unsqueeze(-2), own.unsqueeze(-2), values)
    return odd, small, ratio.squeeze(-2), zero.squeeze(-2)


def _dilated_quotients(nulls: int) -> Any:
    """Γ of (σ, −σ, 0) with so many zeros."""

    def table(values: Tensor, x: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        even, near = _quotients(values, x, slopes)
        odd, small, ratio, zero = _sums(values, x, slopes)
        gamma, equal = (
            torch.cat([torch.cat([a, b], -1), torch.cat([b, a], -1)], -2) for a, b in ((even, odd), (near, small))
        )
        side = (torch.cat([a, a], -1).unsqueeze(-1) for a in (ratio, zero))
        beside, level = (a.expand(*a.shape[:-1], nulls) for a in side)
        corner = ratio.new_zeros(*ratio.shape[:-1], nulls, nulls)
        gamma = torch.cat([torch.cat([gamma, beside], -1), torch.cat([beside.mT, corner], -1)], -2)
        equal = torch.cat([torch.cat([equal, level], -1), torch.cat([level.mT, corner == 0], -1)], -2)
        return gamma, equal

    return table
