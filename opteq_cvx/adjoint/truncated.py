"""Truncated differentiation: the gradient of a few last steps, the fixed point taken as a constant before them."""

from dataclasses import dataclass, replace

from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.equilibrium import equilibrium
from opteq_cvx.adjoint.first_order import first_order
from opteq_cvx.adjoint.mode import AdjointMode, Equilibrated, everything, gather, sound
from opteq_cvx.adjoint.problem import FixedPoint
from opteq_cvx.splitting.contract import Theta


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncated(AdjointMode):
    """Differentiate `steps` applications of z ← (1 − a) z + a T(z, θ), a = `damping`, from the detached fixed point.

    One undamped step is the Jacobian-free gradient; with damping, the phantom gradient. A descent direction where T
    contracts enough, biased by ‖J‖^steps; no linear solve. First order only: a second derivative raises OrderError.
    Source: Fung et al., JFB, AAAI 2022; Geng et al., On training implicit models, NeurIPS 2021.
    """

    steps: int = 1
    damping: float = 1.0

    @override
    def equilibrate(self, problem: FixedPoint, z0: Tensor, theta: Theta, valid: Tensor | None = None) -> Equilibrated:
        constants = tuple(t.detach() for t in theta)
        found = gather(equilibrium(problem, z0.detach(), everything(z0, valid), *constants))
        attached = tuple(first_order(t) if t.requires_grad else t for t in theta)
        start, parameters, prepared = sound(problem, found, found.z, attached)
        z = start
        for _ in range(self.steps):
            z = z + self.damping * (problem.step(z, parameters, prepared) - z)
        # the value stays that of the solve, whose residual is known
        moved = (z - z.detach()).masked_fill(found.failed[:, None], 0.0)
        return replace(found, z=found.z + moved)
