"""Second derivatives of functions of eigenvalues and of singular values, exact where eigenvalues coincide.

In the basis of eigenvectors, with Γ as in `spectral` and h, k the diagonals of H and K, the entries of D²F(H, K) are

    Σ_m T_ijm (K_im H_mj + H_im K_mj) + DΓ_ij[k] H_ij + DΓ_ij[h] K_ij   off the diagonal, over m other than i and j,
    ∂/∂λ_i (Σ_{m≠l} Γ_ml H_ml K_ml + hᵀJk)                              on it,

with T_ijm = (Γ_mj − Γ_ij)/(λ_m − λ_i), symmetric in i, j, m: where two of the three coincide the other gap divides,
where all three do T is ½ aᵀD²p[a, b] with a = e_i − e_j, b = e_i − e_m. p is a gradient, as every prox is.
Source: Lewis, Sendov, *Twice differentiable spectral functions*, 2001, theorem 4.2 (∇²F); Higham, *Functions of
Matrices*, 2008, section 3.2 (divided differences).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.errors import OrderError, message
from opteq_cvx.maps.peek import transformed

Lifted = Callable[..., Tensor]
"""(λ, *parameters) to x along the last axis; parameters have the batch axes of λ and one more."""

CHUNK = 2**21
"""Entries of T that are made at a time."""


def symmetric_part(v: Tensor) -> Tensor:
    """(V + Vᵀ)/2."""
    return 0.5 * (v + v.mT)


def off_diagonal(v: Tensor) -> Tensor:
    """V with a zero diagonal."""
    return v - torch.diag_embed(v.diagonal(dim1=-2, dim2=-1))


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """A v for batches of both."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def jacobians(p: Lifted, values: Tensor, *parameters: Tensor) -> list[Tensor]:
    """∂p/∂λ (*batch, n, n) and ∂p/∂parameter (*batch, n, k): all rows by one pullback."""
    n = values.shape[-1]
    rows = [a.expand(n, *a.shape) for a in (values, *parameters)]
    pulled: Any = torch.func.vjp(p, *rows)
    x, pull = pulled
    unit = torch.eye(n, dtype=values.dtype, device=values.device)
    unit = unit.reshape(n, *(1,) * (values.ndim - 1), n).expand_as(x)
    return [g.movedim(0, -2) for g in pull(unit)]


def slope(p: Lifted, values: Tensor, *parameters: Tensor) -> Tensor:
    """∂p/∂λ (*batch, n, n) alone."""
    return jacobians(lambda s: p(s, *(q.expand(s.shape[0], *q.shape) for q in parameters)), values)[0]


def directional(f: Callable[[Tensor], Tensor], at: Tensor, along: Tensor) -> Tensor:
    """Df(at)[along], by two pullbacks: forward mode would want a rule of every function inside."""
    pulled: Any = torch.func.vjp(f, at)
    y, pull = pulled
    twice: Any = torch.func.vjp(lambda c: pull(c)[0], torch.zeros_like(y))
    pushed: Tensor = twice[1](along)[0]
    return pushed


def tie(values: Tensor, power: float = 0.5) -> Tensor:
    """The gap (*batch, 1, 1) below which two values count as equal: rounding to a power."""
    size = values.abs().amax(-1, keepdim=True).unsqueeze(-1).detach()
    return size * float(torch.finfo(values.dtype).eps ** power)


def divided(rise: Tensor, gap: Tensor, limit: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """rise/gap, or its limit where the gap is nearly 0, and where that is.

    The quotient loses digits with the gap, the limit errs by the gap's square: they cross at a gap of rounding^(1/3).
    Below, the limit is taken where both agree, so that no kink lies between.
    """
    power = 1.0 / 3.0
    apart = gap.abs() > tie(values)
    quotient = rise / torch.where(apart, gap, 1.0)
    smooth = (quotient - limit).detach().abs() <= float(torch.finfo(gap.dtype).eps ** power)
    apart = apart & ((gap.abs() > tie(values, power)) | ~smooth)
    return torch.where(apart, rise / torch.where(apart, gap, 1.0), limit), ~apart


Table = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(s, p(s), J) to Γ with a zero diagonal, to be derived once more, and where eigenvalues coincide."""


def second(
    p: Lifted,
    table: Table,
    n: int,
    eigen: tuple[Tensor, Tensor],
    pair: tuple[Tensor, Tensor],
    parameters: tuple[Tensor, ...],
) -> Tensor:
    """D²F(H, K), symmetric in H and K.

    Args:
        p: of the spectrum s, the first n entries of λ, sorted.
        table: Γ.
        n: length of the spectrum. Where λ is longer, it is (s, −s, 0), and F is odd.
        eigen: λ and U.
        pair: H and K, symmetric.
        parameters: of p.
    """
    values, vectors = eigen
    h, k = (vectors.mT @ a @ vectors for a in pair)

    def gamma(s: Tensor) -> Tensor:
        return table(s, p(s, *parameters), jacobians(p, s, *parameters)[0])[0]

    s = values[..., :n]
    g, near = table(s, p(s, *parameters), jacobians(p, s, *parameters)[0])
    h_s, k_s = (a.diagonal(dim1=-2, dim2=-1)[..., :n] for a in (h, k))
    h, k = off_diagonal(h), off_diagonal(k)
    odd = n < values.shape[-1]

    def pairing(s: Tensor) -> Tensor:
        total = (gamma(s) * h * k).sum((-2, -1))
        curved = (h_s * times(jacobians(p, s, *parameters)[0], k_s)).sum(-1)
        return (0.5 * total if odd else total) + curved

    found: Any = torch.func.vjp(pairing, s)
    value, pull = found
    diagonal = pull(torch.ones_like(value))[0]
    limit = _triples(p, s, near[..., :n, :n], parameters)
    if odd:
        rest = values.shape[-1] - 2 * n
        diagonal, limit = (torch.cat([a, -a, a.new_zeros(*a.shape[:-1], rest)], -1) for a in (diagonal, limit))
    turned = _turned(values, g, near, limit, h, k)
    inner = turned + turned.mT + directional(gamma, s, k_s) * h + directional(gamma, s, h_s) * k
    return vectors @ (off_diagonal(inner) + torch.diag_embed(diagonal)) @ vectors.mT


def _triples(p: Lifted, s: Tensor, near: Tensor, parameters: tuple[Tensor, ...]) -> Tensor:
    """T of three equal values, for each of them; s is sorted. 0 where there are none."""
    n = s.shape[-1]
    if n < 3:
        return torch.zeros_like(s)
    unit = torch.eye(n, dtype=s.dtype, device=s.device)
    a, b = (
        (unit[: n - 2] - unit[i : n - 2 + i]).reshape(n - 2, *(1,) * (s.ndim - 1), n).expand(n - 2, *s.shape)
        for i in (1, 2)
    )
    rows = [q.expand(n - 2, *q.shape) for q in parameters]

    def slope(s: Tensor) -> Tensor:
        pulled: Any = torch.func.vjp(lambda s: p(s, *rows), s)
        gradient: Tensor = pulled[1](a)[0]
        return (gradient * b).sum(-1)

    twice: Any = torch.func.vjp(slope, s.expand(n - 2, *s.shape))
    curvature = 0.5 * (twice[1](torch.ones_like(twice[0]))[0] * a).sum(-1).movedim(0, -1)
    equal = near.diagonal(2, -2, -1)
    pad = torch.nn.functional.pad
    total, count = torch.zeros_like(s), torch.zeros_like(s)
    for i in range(3):
        total = total + pad(torch.where(equal, curvature, 0.0), (i, 2 - i))
        count = count + pad(equal.to(s.dtype), (i, 2 - i))
    return total / count.clamp(min=1.0)


def _turned(values: Tensor, g: Tensor, near: Tensor, limit: Tensor, h: Tensor, k: Tensor) -> Tensor:
    """Σ_m T_ijm K_im H_mj for H, K with a zero diagonal, some m at a time."""
    n = values.shape[-1]
    size = max(1, CHUNK // max(1, g.numel()))
    total = torch.zeros_like(g)
    gap_ij = (values.unsqueeze(-1) - values.unsqueeze(-2)).unsqueeze(-1)
    g_ij, near_ij = g.unsqueeze(-1), near.unsqueeze(-1)
    for start in range(0, n, size):
        m = slice(start, start + size)
        some = values[..., m].unsqueeze(-2)
        gap_im = (values.unsqueeze(-1) - some).unsqueeze(-2)  # axes i, j, m
        gap_jm = (values.unsqueeze(-1) - some).unsqueeze(-3)
        g_im, g_jm = g[..., m].unsqueeze(-2), g[..., m].unsqueeze(-3)
        all_equal = near_ij & near[..., m].unsqueeze(-2) & near[..., m].unsqueeze(-3)
        widest = torch.maximum(gap_ij.abs(), torch.maximum(gap_im.abs(), gap_jm.abs()))
        by_ij, by_im = gap_ij.abs() == widest, gap_im.abs() == widest
        gap = torch.where(by_ij, gap_ij, torch.where(by_im, gap_im, gap_jm))
        rise = torch.where(by_ij, g_im - g_jm, torch.where(by_im, g_ij - g_jm, g_ij - g_im))
        mean = (limit[..., :, None, None] + limit[..., None, :, None] + limit[..., m][..., None, None, :]) / 3.0
        bad = all_equal | (gap == 0)
        t = torch.where(bad, mean, rise / torch.where(bad, 1.0, gap))
        total = total + (t * k[..., m].unsqueeze(-2) * h[..., m].unsqueeze(-3)).sum(-1)
    return total


# --- frames, whose own derivative gives third derivatives, away from ties ----------------------------------


class Eigen(torch.autograd.Function):
    """λ, U of a symmetric matrix, λ ascending; or, for `rows` > 0, of [[0, V], [Vᵀ, 0]] with V of so many rows, by
    its singular values: λ = (σ, −σ, 0).

    Differentiable where eigenvalues differ; elsewhere a derivative of vectors means nothing.
    """

    generate_vmap_rule = True

    @staticmethod
    @override
    def forward(v: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        if rows == 0:
            values, vectors = torch.linalg.eigh(v)
            return values, vectors
        left, values, right = torch.linalg.svd(v[..., :rows, rows:], full_matrices=True)
        n = values.shape[-1]
        half, zero = 0.5**0.5, values.new_zeros
        u, w = left[..., :n] * half, right.mT[..., :n] * half
        batch = values.shape[:-1]
        beside = torch.cat([left[..., n:], zero(*batch, right.shape[-1], left.shape[-1] - n)], -2)
        below = torch.cat([zero(*batch, left.shape[-1], right.shape[-1] - n), right.mT[..., n:]], -2)
        frame = torch.cat([torch.cat([u, w], -2), torch.cat([u, -w], -2), beside, below], -1)
        return torch.cat([values, -values, zero(*batch, frame.shape[-1] - 2 * n)], -1), frame

    @staticmethod
    @override
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        v, rows = inputs
        ctx.nulls = abs(v.shape[-1] - 2 * rows) if rows else 0
        ctx.save_for_backward(*output)
        ctx.save_for_forward(*output)

    @staticmethod
    @override
    def backward(ctx: Any, by_values: Tensor, by_vectors: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        inverse = _inverse_gaps(values, ctx.nulls)
        inner = inverse * (vectors.mT @ by_vectors) + torch.diag_embed(by_values)
        return symmetric_part(vectors @ inner @ vectors.mT), None

    @staticmethod
    @override
    def jvp(ctx: Any, h: Tensor, _: None) -> tuple[Tensor, Tensor]:
        values, vectors = ctx.saved_tensors
        inner = vectors.mT @ h @ vectors
        inverse = _inverse_gaps(values, ctx.nulls)
        return inner.diagonal(dim1=-2, dim2=-1), vectors @ (inverse * inner)


def _inverse_gaps(values: Tensor, nulls: int) -> Tensor:
    """1/(λ_j − λ_i) off the diagonal, 0 on it and between the `nulls` last, which are 0 by their number.

    Raises:
        OrderError: two eigenvalues coincide. Inside transforms and traces, where values cannot be seen: NaN.
    """
    n = values.shape[-1]
    gap = values.unsqueeze(-2) - values.unsqueeze(-1)
    last = torch.arange(n, device=values.device) >= n - nulls
    free = torch.eye(n, dtype=torch.bool, device=values.device) | (last & last.unsqueeze(-1))
    equal = (gap.abs() <= tie(values)) & ~free
    if not transformed() and not torch.compiler.is_compiling() and bool(equal.any()):
        found = "a third derivative of a function of eigenvalues or singular values, two of which coincide"
        raise OrderError(message(found, "distinct ones beyond the second derivative", "differentiate at most twice"))
    inverse = torch.where(equal, torch.nan, 1.0 / torch.where(equal | free, 1.0, gap))
    return torch.where(free, 0.0, inverse)
