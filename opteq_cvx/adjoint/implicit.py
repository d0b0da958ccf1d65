"""The default adjoint: implicit differentiation at the fixed point."""

from dataclasses import dataclass, replace

from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.equilibrium import equilibrium
from opteq_cvx.adjoint.krylov.automatic import Automatic
from opteq_cvx.adjoint.krylov.contract import LinearSolver
from opteq_cvx.adjoint.mode import AdjointMode, Equilibrated, everything, gather
from opteq_cvx.adjoint.problem import FixedPoint, LinearOptions
from opteq_cvx.splitting.contract import Theta


@dataclass(frozen=True, slots=True, kw_only=True)
class Implicit(AdjointMode):
    """(I − J)ᵀ w = g at the fixed point, dL/dθ = (∂T/∂θ)ᵀ w; derivatives of every order, forward and reverse.

    Args:
        solver: CG(), GMRES(), LSMR(), Direct(), Neumann(); None chooses by structure.
        tolerance: of the linear solve, relative to g (times the certified modulus); None takes the forward's.
        max_steps: of the linear solver.
    """

    solver: LinearSolver | None = None
    tolerance: float | None = None
    max_steps: int = 1000

    def options(self, problem: FixedPoint) -> LinearOptions:
        """How the adjoint system of `problem` is solved."""
        solver = Automatic() if self.solver is None else self.solver
        tolerance = problem.tolerance if self.tolerance is None else self.tolerance
        return LinearOptions(solver=solver, tolerance=tolerance, max_steps=self.max_steps)

    @override
    def equilibrate(self, problem: FixedPoint, z0: Tensor, theta: Theta, valid: Tensor | None = None) -> Equilibrated:
        bound = replace(problem, linear=self.options(problem))
        return gather(equilibrium(bound, z0.detach(), everything(z0, valid), *theta))
