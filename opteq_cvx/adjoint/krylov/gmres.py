"""Restarted GMRES for maps without symmetry, all samples at once, each with its own stopping."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System, norms, plausible, relative


@dataclass(frozen=True, slots=True, kw_only=True)
class GMRES(LinearSolver):
    """Minimize ‖v − A w‖ over Krylov spaces of size `restart`, again from the last w until done.

    Arnoldi by classical Gram-Schmidt done twice, Givens rotations for the small least-squares problem. Memory
    (restart + 1)·d per sample. Source: Saad and Schultz, GMRES, 1986.
    """

    restart: int = 50

    @override
    def solve(self, system: System, v: Tensor, *, tolerance: Tensor | float, max_steps: int) -> Linear:
        size = norms(v)
        goal = tolerance * size
        w, r = torch.zeros_like(v), v
        residual = size
        steps = torch.zeros_like(size, dtype=torch.int64)
        used = 0
        while used < max_steps:
            active = residual > goal
            if not bool(active.any()):
                break
            length = min(self.restart, max_steps - used, v.shape[1])
            correction, taken = cycle(system, r, residual, goal, active, length)
            trial = w + correction
            r = torch.where(active[:, None], v - system.apply(trial), r)
            reached = norms(r)
            better = active & (reached < residual)
            w = torch.where(better[:, None], trial, w)
            steps = steps + torch.where(active, taken, 0)
            used += length
            stuck = better.logical_not().logical_or(reached > 0.999 * residual)
            residual = torch.where(better, reached, residual)
            if not bool((active & ~stuck & (residual > goal)).any()):
                break
        ratio = relative(residual, size)
        return Linear(w, ratio, steps, (residual <= goal) & plausible(w, v))


def cycle(
    system: System, r: Tensor, size: Tensor, goal: Tensor, active: Tensor, length: int
) -> tuple[Tensor, Tensor]:
    """One Arnoldi cycle from the residual r (B, d) of norm `size`: the correction of w and the steps it took."""
    batch, d = r.shape
    basis = r.new_zeros(batch, length + 1, d)
    upper = r.new_zeros(batch, length, length)  # the triangular factor, by columns
    right = r.new_zeros(batch, length + 1)
    cosines, sines = r.new_ones(batch, length), r.new_zeros(batch, length)
    basis[:, 0] = torch.where(active[:, None], r / size.clamp_min(torch.finfo(r.dtype).tiny)[:, None], 0.0)
    tail = torch.where(active, size, 0.0)  # the last entry of the rotated right-hand side: the residual, signed
    taken = torch.zeros(batch, dtype=torch.int64, device=r.device)
    live = active.clone()
    used = length
    for j in range(length):
        new = system.apply(basis[:, j])
        known = basis[:, : j + 1]
        column = torch.bmm(known, new[:, :, None])
        new = new - torch.bmm(column.transpose(1, 2), known).squeeze(1)
        again = torch.bmm(known, new[:, :, None])
        new = new - torch.bmm(again.transpose(1, 2), known).squeeze(1)
        entries = (column + again).squeeze(2)
        below = norms(new)
        for i in range(j):
            upper_i, upper_n = entries[:, i].clone(), entries[:, i + 1].clone()
            entries[:, i] = cosines[:, i] * upper_i + sines[:, i] * upper_n
            entries[:, i + 1] = cosines[:, i] * upper_n - sines[:, i] * upper_i
        radius = torch.hypot(entries[:, j], below)
        fine = live & (radius > 0)
        cosine = torch.where(fine, entries[:, j] / radius, 1.0)
        sine = torch.where(fine, below / radius, 0.0)
        cosines[:, j], sines[:, j] = cosine, sine
        entries[:, j] = radius
        unit = torch.zeros_like(entries)
        unit[:, j] = 1.0
        upper[:, : j + 1, j] = torch.where(fine[:, None], entries, unit)
        right[:, j] = torch.where(fine, cosine * tail, 0.0)
        tail = torch.where(fine, -sine * tail, tail)
        taken.masked_fill_(fine, j + 1)
        # a sample that is done, or whose space is exhausted (below = 0), adds nothing any more
        live = fine & (tail.abs() > goal) & (below > 0)
        basis[:, j + 1] = torch.where(live[:, None], new / below.clamp_min(torch.finfo(r.dtype).tiny)[:, None], 0.0)
        if not bool(live.any()):
            used = j + 1
            break
    y = torch.linalg.solve_triangular(upper[:, :used, :used], right[:, :used, None], upper=True)
    return torch.bmm(y.transpose(1, 2), basis[:, :used]).squeeze(1), taken
