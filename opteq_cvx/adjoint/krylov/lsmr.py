"""LSMR: the minimum-norm least-squares solution, for systems that are singular or badly conditioned."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System, norms, relative


@dataclass(frozen=True, slots=True, kw_only=True)
class LSMR(LinearSolver):
    """Minimize ‖v − A w‖, and of the minimizers take the one of least norm; products with A and Aᵀ, one each a step.

    A sample is done when ‖v − A w‖ ≤ tolerance·‖v‖, or when ‖Aᵀ(v − A w)‖ ≤ tolerance·‖A‖‖v − A w‖: a
    least-squares solution of an inconsistent system, which is reported as not converged.
    Source: Fong and Saunders, LSMR, SIAM J. Sci. Comput. 33, 2011.
    """

    @override
    def solve(self, system: System, v: Tensor, *, tolerance: Tensor | float, max_steps: int) -> Linear:
        size = norms(v)
        beta = size
        u = unit(v, beta)
        x = system.apply_transpose(u)
        alpha = norms(x)
        x = unit(x, alpha)
        zetabar, alphabar = alpha * beta, alpha
        one, zero = torch.ones_like(size), torch.zeros_like(size)
        rho, rhobar, cbar, sbar = one, one, one, zero
        h, hbar, w = x.clone(), torch.zeros_like(v), torch.zeros_like(v)
        frobenius = alpha.square()
        active = zetabar > 0
        steps = torch.zeros_like(size, dtype=torch.int64)
        for step in range(1, max_steps + 1):
            if not bool(active.any()):
                break
            steps.masked_fill_(active, step)
            u = system.apply(x).sub_(alpha[:, None] * u)
            beta = norms(u)
            u = unit(u, beta)
            x = system.apply_transpose(u).sub_(beta[:, None] * x)
            alpha = norms(x)
            x = unit(x, alpha)
            rho_old, rho = rho, torch.hypot(alphabar, beta)
            c, s = ratio(alphabar, rho), ratio(beta, rho)
            theta, alphabar = s * alpha, c * alpha
            rhobar_old = rhobar
            thetabar = sbar * rho
            rhobar = torch.hypot(cbar * rho, theta)
            cbar, sbar = ratio(cbar * rho, rhobar), ratio(theta, rhobar)
            zeta, zetabar = cbar * zetabar, -sbar * zetabar
            hbar = h - ratio(thetabar * rho, rho_old * rhobar_old)[:, None] * hbar
            move = torch.where(active, ratio(zeta, rho * rhobar), zero)
            w = w + move[:, None] * hbar
            h = x - ratio(theta, rho)[:, None] * h
            frobenius = frobenius + alpha.square() + beta.square()
            # |zetabar| = ‖Aᵀ(v − A w)‖; the residual itself is measured now and then only
            active = active & (zetabar.abs() > tolerance * frobenius.sqrt() * size * 1e-2) & (rho * rhobar > 0)
            if step % 10 == 0:
                active = active & (norms(v - system.apply(w)) > tolerance * size)
        gap = relative(norms(v - system.apply(w)), size)
        return Linear(w, gap, steps, gap <= tolerance)


def unit(x: Tensor, size: Tensor) -> Tensor:
    """x / ‖x‖ per row, 0 where it vanishes."""
    return torch.where(size[:, None] > 0, x / size[:, None], 0.0)


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b = 0."""
    return torch.where(b != 0, a / b, 0.0)
