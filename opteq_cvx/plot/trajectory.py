"""What a layer's map does step by step: its iterates, all residuals of each, the energy, and the Jacobian at the end.

The plain iteration z ← T(z) of the layer's own splitting, without acceleration, rebalancing or polishing, which is
what pictures are about. Residuals of an iterate are those of `opteq_cvx.certificate` and ‖z − T(z)‖ / max(‖z‖, 1).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from opteq_cvx import call
from opteq_cvx.binding import bind
from opteq_cvx.certificate import Evidence
from opteq_cvx.errors import InputError, message
from opteq_cvx.ir.param import Stage
from opteq_cvx.layer import EquilibriumLayer
from opteq_cvx.maps.evaluate import Constants, Environment
from opteq_cvx.plan import Plan
from opteq_cvx.splitting.contract import Prepared
from opteq_cvx.splitting.flat import split
from opteq_cvx.splitting.objective import objective, violation
from opteq_cvx.status import Status, code

OUTSIDE = 1e-9
"""Points that violate a constraint by more have the energy +∞."""


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """K steps of the plain map from its start, for B samples.

    Attributes:
        states: z (K + 1, B, d).
        variables: u (K + 1, B, n), all variables flattened one after the other.
        residuals: by name (K + 1, B): "fixed point", and "primal", "dual", "gap" where the program has an objective.
        plan: the layer's.
        data: what was evaluated of weights and inputs.
        prepared: steps and factors of the map.
    """

    states: Tensor
    variables: Tensor
    residuals: Mapping[str, Tensor]
    plan: Plan
    data: call.Data
    prepared: Prepared

    def energy(self, sample: int = 0, entries: tuple[int, int] = (0, 1)) -> Callable[[Tensor], Tensor]:
        """The objective as a function of two entries of u, the others as at the last iterate: (m, 2) → (m,).

        +∞ where a constraint is violated. As the user wrote it: for a `Maximize`, the larger the better.

        Raises:
            InputError: the layer is an equilibrium without an objective.
        """
        if not self.plan.has_objective:
            found = "an equilibrium without an objective"
            raise InputError(message(found, "a program with level sets", "draw its path alone"))
        last, program = self.variables[-1, sample], self.plan.program
        env = _alone(self.data, sample)

        def value(points: Tensor) -> Tensor:
            u = last.expand(len(points), -1).clone()
            u[:, list(entries)] = points.to(u.dtype)
            with torch.no_grad():
                variables = split(u, self.plan.layout)
                total = objective(program, variables, env).expand(len(points))
                outside = violation(program, variables, env).expand(len(points)) > OUTSIDE
            return torch.where(outside, torch.inf, total)

        return value

    def spectrum(self) -> Tensor:
        """The eigenvalues (B, d), complex, of J = ∂T/∂z at the last iterate, the largest modulus first; O(d³)."""
        z = self.states[-1]
        splitting, theta = self.plan.splitting, self.data.theta
        jacobian = splitting.linearize(z, theta, self.prepared).dense(len(z), z)
        found = torch.linalg.eigvals(jacobian)
        return torch.gather(found, 1, found.abs().argsort(dim=1, descending=True))


def trajectory(layer: EquilibriumLayer, *inputs: Tensor, steps: int = 50) -> Trajectory:
    """Follow the layer's map for `steps` steps, from where a solve would start.

    Args:
        layer: a compiled layer at its present weights; float64 where residuals below 1e-6 are to be seen.
        inputs: as the layer takes them; batch axes are flattened to one.
        steps: K ≥ 1, the same for every sample.

    Raises:
        InputError: no step; inputs that do not fit.
    """
    if steps < 1:
        raise InputError(message(f"steps={steps}", "at least 1", "ask for more"))
    plan, weights = layer.plan, layer.prepare().weights
    splitting = plan.splitting
    leaves = [p for p in layer.program.parameters if p.stage is Stage.INPUT]
    like = next(iter(weights.values()), None)
    with torch.no_grad():
        bound = bind(leaves, inputs, {}, like)
        data = call.evaluate(splitting, weights, bound, Constants())
        prepared = splitting.prepare(data.theta)
        states = [splitting.start(bound.rows, data.theta)]
        for _ in range(steps + 1):
            states.append(splitting.step(states[-1], data.theta, prepared))
        gone = [torch.linalg.vector_norm(b - a, dim=1) for a, b in pairwise(states)]
        sizes = [torch.linalg.vector_norm(z, dim=1).clamp(min=1.0) for z in states[:-1]]
        residuals = {"fixed point": torch.stack([g / s for g, s in zip(gone, sizes, strict=True)])}
        kept = states[:-1]
        variables = torch.stack([splitting.primal(z, data.theta, prepared).expand(bound.rows, -1) for z in kept])
        if plan.has_objective:
            residuals |= _certified(plan, data, prepared, kept)
    return Trajectory(torch.stack(kept), variables, residuals, plan, data, prepared)


def _certified(plan: Plan, data: call.Data, prepared: Prepared, states: list[Tensor]) -> dict[str, Tensor]:
    """Primal and dual residual and gap of every state, (K + 1, B)."""
    theta, modulus = data.theta, prepared.certificate.modulus
    rows = states[0].shape[0]
    solved = torch.full((rows,), code(Status.CONVERGED), device=states[0].device)
    found = []
    for z in states:
        saddle = plan.splitting.saddle(z, theta, prepared).detach()
        found.append(Evidence(plan, saddle, theta, data.env, modulus, solved, (rows,)).certificate)
    return {name: torch.stack([getattr(c, name) for c in found]) for name in ("primal", "dual", "gap")}


def _alone(data: call.Data, sample: int) -> Environment:
    """The parameters of one sample, shared by a batch of points."""
    values = {name: v if v.shape[0] == 1 else v[sample : sample + 1] for name, v in data.values.items()}
    return Environment(values, data.env.dtype, data.env.device)
