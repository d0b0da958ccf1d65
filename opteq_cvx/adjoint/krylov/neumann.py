"""The Neumann series w = Σ_k (Jᵀ)^k v: slow, but needs nothing except products; for contractions."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System, norms, relative
from opteq_cvx.iterate.driver import Flag


@dataclass(frozen=True, slots=True, kw_only=True)
class Neumann(LinearSolver):
    """w ← v + Jᵀ w until the increment, which is the residual of the step before, is small.

    After k steps the error is at most q^{k+1} ‖v‖ / (1 − q), q = ‖J‖. Source: the tail of the geometric series.
    """

    @override
    def solve(self, system: System, v: Tensor, *, tolerance: Tensor | float, max_steps: int) -> Linear:
        product = system.jacobian.rmatvec if system.transposed else system.jacobian.matvec
        w, term, size = v.clone(), v, norms(v)
        flag = Flag(v.device)
        residual = size
        active = size > 0
        steps = torch.zeros_like(size, dtype=torch.int64)
        for step in range(1, max_steps + 1):
            term = product(term)  # the residual of the present w
            residual = torch.where(active, norms(term), residual)
            active &= (residual > tolerance * size) & torch.isfinite(residual)
            steps.masked_fill_(active, step)
            if not flag.read(active):
                break
            w = torch.where(active[:, None], w + term, w)
        ratio = relative(residual, size)
        return Linear(w, ratio, steps, ratio <= tolerance)
