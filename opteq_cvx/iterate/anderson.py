"""Anderson acceleration, type II, with a safeguard per sample that really falls back to the plain map."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.iterate.contract import Iterate, Iteration, Progress, Restrict, Stop
from opteq_cvx.iterate.driver import drive
from opteq_cvx.iterate.rule import Rule

FALL = 0.999  # over a window of 2·memory steps the residual has to fall at least by this factor
HEAVY = 1e6  # coefficients summing to more than this amplify rounding and are not used
ROUNDING = 100.0  # the ridge is at least this many units of rounding of the state's dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Anderson(Iteration):
    """z⁺ = g − Σ_j γ_j Δg_j with γ = argmin ‖f − Σ_j γ_j Δf_j‖² + ridge, f = T(z) − z, g = z + a f, a = `relaxation`.

    Δf_j, Δg_j are differences of successive accepted steps, `memory` of them. The normal matrix (memory × memory) is
    scaled to unit diagonal, receives `regularization` on it, and is factored in float64, one per sample.

    Safeguard, per sample: an extrapolated point is kept only if its residual is at most `growth` times the least one
    so far; otherwise the step is undone, replaced by the plain step, and the memory cleared. Where the residual
    does not fall over 2·memory steps the sample does plain steps for a while, twice as many each time.

    Cost per step beside T: 4·memory·d flops and one Cholesky of size memory. Source: Walker and Ni, Anderson
    acceleration for fixed-point iterations, 2011; Zhang, O'Donoghue, Boyd, Globally convergent type-I Anderson, 2020.
    """

    memory: int = 10
    regularization: float = 1e-10
    growth: float = 1.0
    relaxation: float = 1.0

    @override
    def run(
        self,
        restrict: Restrict,
        z0: Tensor,
        stop: Stop,
        *,
        history: bool = False,
        progress: Progress | None = None,
    ) -> Iterate:
        return drive(Mixing(z0, self), restrict, z0, stop, history=history, progress=progress)


class Mixing(Rule):
    """The differences live in a ring of `memory` slots that all samples share; `valid` says which a sample uses."""

    def __init__(self, z0: Tensor, options: Anderson) -> None:
        batch, d = z0.shape
        memory = max(1, min(options.memory, d))
        self.options, self.memory = options, memory
        self.ridge = max(options.regularization, ROUNDING * torch.finfo(z0.dtype).eps)
        self.df, self.dg = z0.new_zeros(batch, memory, d), z0.new_zeros(batch, memory, d)
        self.gram = z0.new_zeros(batch, memory, memory, dtype=torch.float64)
        self.valid = torch.zeros(batch, memory, dtype=torch.bool, device=z0.device)
        self.pair = z0.new_empty(batch, 2, d)
        self.f, self.g = torch.empty_like(z0), torch.empty_like(z0)
        self.least, self.mark = z0.new_full((batch,), torch.inf), z0.new_full((batch,), torch.inf)
        self.mixed = torch.zeros(batch, dtype=torch.bool, device=z0.device)
        self.hold = torch.zeros(batch, dtype=torch.int64, device=z0.device)
        self.span = torch.full_like(self.hold, memory)
        self.count = 0

    @override
    def advance(self, z: Tensor, image: Tensor) -> Tensor:
        f = image - z
        g = image.clone() if self.options.relaxation == 1.0 else torch.lerp(z, image, self.options.relaxation)
        residual = torch.linalg.vector_norm(f, dim=1)
        if self.count == 0:
            self.count, self.f, self.g = 1, f, g
            self.least.copy_(residual)
            return g
        f, g = self.guard(f, g, residual)
        gamma = self.coefficients(self.push(f, g))
        self.mixed = gamma.any(1)
        self.f, self.g = f, g
        return torch.baddbmm(g[:, None], gamma[:, None].to(g.dtype), self.dg, alpha=-1.0).squeeze(1)

    def guard(self, f: Tensor, g: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Undo extrapolations that raised the residual; clear the memory of samples that do not progress."""
        undo = self.mixed & ~(residual <= self.options.growth * self.least)
        self.least = torch.fmin(self.least, residual)
        drop = undo
        if self.count % (2 * self.memory) == 0:
            stalled = ~(self.least <= FALL * self.mark)
            self.hold = torch.where(stalled, self.span, self.hold)
            self.span = torch.where(stalled, 2 * self.span, self.span)
            self.mark = self.least.clone()
            drop = undo | stalled
        if f.is_cuda or bool(drop.any()):
            self.valid &= ~drop[:, None]
            f, g = torch.where(undo[:, None], self.f, f), torch.where(undo[:, None], self.g, g)
        self.fresh = ~undo
        return f, g

    def push(self, f: Tensor, g: Tensor) -> Tensor:
        """Put the newest differences in their slot; return the products of all Δf with f (b, memory), in float64."""
        slot = self.count % self.memory
        self.count += 1
        torch.sub(f, self.f, out=self.df[:, slot])
        torch.sub(g, self.g, out=self.dg[:, slot])
        self.pair[:, 0] = self.df[:, slot]
        self.pair[:, 1] = f
        products = torch.bmm(self.pair, self.df.mT).to(torch.float64)
        newest = products[:, 0]
        self.gram[:, slot, :] = newest
        self.gram[:, :, slot] = newest
        self.valid[:, slot] = self.fresh.logical_and_(newest[:, slot] > 0)
        return products[:, 1]

    def coefficients(self, right: Tensor) -> Tensor:
        """Solve the ridge problem; zero where the memory is empty, on hold, or the factorization fails."""
        diagonal = self.gram.diagonal(dim1=1, dim2=2)
        scale = torch.where(self.valid, diagonal, torch.inf).rsqrt()
        matrix = self.gram * scale[:, :, None]
        matrix.mul_(scale[:, None, :]).diagonal(dim1=1, dim2=2).fill_(1.0 + self.ridge)
        factor, info = torch.linalg.cholesky_ex(matrix)
        gamma = torch.cholesky_solve((right * scale)[:, :, None], factor).squeeze(2).mul_(scale)
        usable = (info == 0).logical_and_(self.hold == 0).logical_and_(gamma.abs().sum(1) < HEAVY)
        self.hold = (self.hold - 1).clamp_min(0)
        return torch.where(usable[:, None] & self.valid, gamma, 0.0)

    @override
    def take(self, rows: Tensor) -> None:
        self.df, self.dg, self.pair = self.df[rows], self.dg[rows], self.pair[rows]
        self.gram, self.valid = self.gram[rows], self.valid[rows]
        self.f, self.g = self.f[rows], self.g[rows]
        self.least, self.mark, self.mixed = self.least[rows], self.mark[rows], self.mixed[rows]
        self.hold, self.span = self.hold[rows], self.span[rows]
