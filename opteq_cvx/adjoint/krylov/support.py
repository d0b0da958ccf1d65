"""The reduced system on the support of D by Cholesky, where J = D M, D is diagonal and Krylov methods would be slow."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System, norms, plausible, relative
from opteq_cvx.adjoint.krylov.richardson import SLOWEST
from opteq_cvx.splitting.linearization import SymmetricLinearization
from opteq_cvx.splitting.support import MOST, reduce, steps_worth, width

ROUNDS = 3  # solves with one factor: the answer, and what its residual leaves
WORTH = 40.0  # products with M that a factorization may cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Support(LinearSolver):
    """Solve (I − M D) w = v or (I − D M) w = v where `suits`: w = c + M s with s = D (c + M s) on the support of D.

    Samples whose reduced system is not positive definite are reported as not converged.
    """

    @override
    def solve(self, system: System, v: Tensor, *, tolerance: Tensor | float, max_steps: int) -> Linear:
        form = system.jacobian
        assert isinstance(form, SymmetricLinearization)
        assert form.matrix is not None
        assert form.diagonal is not None
        d = form.diagonal.expand_as(v)
        right = v if system.transposed else form.apply_m(v)
        size, zero = norms(right), torch.zeros_like(v)
        factor = reduce(form.matrix, d, max(width(d), 1))
        s, g, r, gap, taken = zero, right, d * right, size, 0
        for _ in range(ROUNDS):
            # the residual is r = D (c + M s) − s, so that D (r′ + M e) with r′ = r / D corrects it
            s = s + factor.solve(torch.where(d > 0, r / d.clamp_min(torch.finfo(v.dtype).tiny), 0.0))
            g = right + form.apply_m(s)
            r = (g * d).sub_(s)
            gap, taken = norms(r), taken + 1
            done = gap <= tolerance * size
            if bool(done.all()):
                break
        w = g if system.transposed else torch.addcmul(v, d, g)
        done = done & plausible(w, v) & (factor.fine | (size == 0))
        return Linear(w, relative(gap, size), torch.where(size > 0, taken, 0), done)


def suits(system: System, v: Tensor) -> bool:
    """Whether the reduced matrices are few and small enough, and M and D are at hand as numbers on the CPU."""
    form = system.jacobian
    if system.rate is not None and system.rate <= SLOWEST:  # a few cheap steps
        return False
    if v.device.type != "cpu" or not isinstance(form, SymmetricLinearization):
        return False
    if form.matrix is None or form.diagonal is None:
        return False
    k = width(form.diagonal)
    return steps_worth(k, v.shape[1], form.matrix.shape[0] == 1) <= WORTH and v.shape[0] * k * k <= MOST
