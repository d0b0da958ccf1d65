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


def cycle(system: System, r: Tensor, size: Tensor, goal: Tensor, active: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """One Arnoldi cycle from the residual r (B, d) of norm `size`: the correction of w and the steps it took."""
    batch, d = r.shape
    tiny = torch.finfo(r.dtype).tiny
    basis = r.new_zeros(batch, length + 1, d)
    upper = r.new_zeros(batch, length, length)  # the triangular factor
    right = r.new_zeros(batch, length)
    turn = torch.eye(length + 1, dtype=r.dtype, device=r.device).repeat(batch, 1, 1)  # all rotations so far
    basis[:, 0] = torch.where(active[:, None], r / size.clamp_min(tiny)[:, None], 0.0)
    tail = torch.where(active, size, 0.0)  # the last entry of the rotated right-hand side: the residual, signed
    taken = torch.zeros(batch, dtype=torch.int64, device=r.device)
    live, used = active, length
    for j in range(length):
        new, column = orthogonalize(system.apply(basis[:, j]), basis[:, : j + 1])
        below = norms(new)
        rotated = torch.bmm(turn[:, : j + 1, : j + 1], column[:, :, None]).squeeze(2)
        radius = torch.hypot(rotated[:, j], below)
        fine = live & (radius > 0)
        cosine = torch.where(fine, rotated[:, j] / radius, 1.0)
        sine = torch.where(fine, below / radius, 0.0)
        first, second = turn[:, j, : j + 2].clone(), turn[:, j + 1, : j + 2].clone()
        turn[:, j, : j + 2] = cosine[:, None] * first + sine[:, None] * second
        turn[:, j + 1, : j + 2] = cosine[:, None] * second - sine[:, None] * first
        upper[:, :j, j] = torch.where(fine[:, None], rotated[:, :j], 0.0)
        upper[:, j, j] = torch.where(fine, radius, 1.0)
        right[:, j] = torch.where(fine, cosine * tail, 0.0)
        tail = torch.where(fine, -sine * tail, tail)
        taken = torch.where(fine, j + 1, taken)
        # a sample that is done, or whose space is exhausted (below = 0), adds nothing any more
        live = fine & (tail.abs() > goal) & (below > 0)
        basis[:, j + 1] = torch.where(live[:, None], new / below.clamp_min(tiny)[:, None], 0.0)
        if not bool(live.any()):
            used = j + 1
            break
    y = torch.linalg.solve_triangular(upper[:, :used, :used], right[:, :used, None], upper=True)
    return torch.bmm(y.mT, basis[:, :used]).squeeze(1), taken


def orthogonalize(x: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """x less its components along the orthonormal rows of basis (B, j, d), twice Gram-Schmidt; and those (B, j)."""
    column = x.new_zeros(basis.shape[0], 1, basis.shape[1])
    for _ in range(2):
        part = torch.bmm(x[:, None], basis.mT)
        x = x - torch.bmm(part, basis).squeeze(1)
        column = column + part
    return x, column.squeeze(1)
