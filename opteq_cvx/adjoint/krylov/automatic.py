"""The default: by structure CG, Richardson steps, the optimality system of a map in graph form, or GMRES.

Richardson steps serve where the spectrum is certified short. What these leave unsolved goes to a safer solver.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.krylov import richardson, support
from opteq_cvx.adjoint.krylov.cg import CG
from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System, norms
from opteq_cvx.adjoint.krylov.direct import Direct
from opteq_cvx.adjoint.krylov.gmres import GMRES
from opteq_cvx.adjoint.krylov.lsmr import LSMR
from opteq_cvx.adjoint.krylov.reduced import Reduced
from opteq_cvx.splitting.linearization import SymmetricLinearization
from opteq_cvx.splitting.optimality import GraphLinearization

DENSE = 400  # up to this dimension the second attempt is a dense factorization

GROWTH = 300.0  # ‖w‖ / ‖v‖ from which on a solution of GMRES gets a second opinion


@dataclass(frozen=True, slots=True, kw_only=True)
class Automatic(LinearSolver):
    """Choose by structure; repeat unsolved samples by `Direct` (small d) or `LSMR`.

    Where the system is singular and inconsistent the answer is the minimum-norm least-squares solution, reported as
    not converged. Where it is singular and consistent GMRES may return any of its solutions: they differ by n with
    (I − J)ᵀ n = 0, and nᵀ ∂T/∂θ = 0 wherever fixed points persist for all θ nearby, so gradients agree.
    """

    @override
    def solve(self, system: System, v: Tensor, *, tolerance: Tensor | float, max_steps: int) -> Linear:
        jacobian = system.jacobian
        symmetric = isinstance(jacobian, SymmetricLinearization)
        reduced = isinstance(jacobian, GraphLinearization)
        special: LinearSolver | None = None
        if richardson.suits(system, v, tolerance):
            special = richardson.Richardson()
        elif support.suits(system, v):
            special = support.Support()
        if special is not None:
            answer = special.solve(system, v, tolerance=tolerance, max_steps=max_steps)
            if bool(answer.converged.all()):
                return answer
        first: LinearSolver = CG() if symmetric else Reduced() if reduced else GMRES()
        answer = first.solve(system, v, tolerance=tolerance, max_steps=max_steps)
        doubtful = answer.converged.logical_not()
        if not symmetric and not reduced and v.shape[1] <= DENSE:
            doubtful = doubtful | (norms(answer.w) > GROWTH * norms(v))
        if not bool(doubtful.any()):
            return answer
        index = doubtful.logical_and_(torch.isfinite(v).all(1)).nonzero().squeeze(1)
        if index.numel() == 0:
            return answer
        second: LinearSolver = Direct() if v.shape[1] <= DENSE else LSMR()
        goal = tolerance[index] if isinstance(tolerance, Tensor) and tolerance.shape[0] > 1 else tolerance
        repeat = second.solve(system.rows(index), v[index], tolerance=goal, max_steps=max_steps)
        return Linear(
            answer.w.index_copy(0, index, repeat.w),
            answer.residual.index_copy(0, index, repeat.residual),
            answer.steps.index_add(0, index, repeat.steps),
            answer.converged.index_copy(0, index, repeat.converged),
        )
