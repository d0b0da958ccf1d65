"""The solve of a batch whose samples a prior couples: the batch as one state, T(U) = prox(U − γ(PU + q + λB∇R(U))).

A fixed point is a stationary point of Σ_b F_b(u_b) + λB·R(U), whatever γ is. Nothing certifies it: R is not convex.
Source: forward–backward splitting with one more smooth term, Bauschke & Combettes, ch. 28.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.mode import Equilibrated
from opteq_cvx.adjoint.problem import FixedPoint
from opteq_cvx.adjoint.record import GradientRecord
from opteq_cvx.coupling import HSIC
from opteq_cvx.descent import Map
from opteq_cvx.engine import forward_solve
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.ir.layout import Layout
from opteq_cvx.iterate import Anderson
from opteq_cvx.iterate.contract import Iterate, Stop
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.options import Options
from opteq_cvx.plan import Plan
from opteq_cvx.splitting.contract import Certificate, Prepared, Splitting, Theta
from opteq_cvx.splitting.flat import split
from opteq_cvx.splitting.forward_backward import ForwardBackward, multiply

TRIES, SHRINK = 5, 4.0  # the step is shortened so often, by this factor, where the iteration does not converge
MARGIN = 1e-1  # of the tolerance: no modulus is known


@dataclass(frozen=True, slots=True, eq=False)
class Coupled(Frozen, Splitting):
    """theta = (mask, *inner theta) with one more leading axis of length 1; the state is U as (1, B·n)."""

    inner: ForwardBackward
    prior: HSIC
    layout: Layout
    rows: int

    @property
    @override
    def dimension(self) -> int:
        return self.rows * self.inner.dimension

    @override
    def theta(self, env: Environment) -> Theta:
        raise NotImplementedError("made by `equilibrate`")

    def gradient(self, u: Tensor, mask: Tensor) -> Tensor:
        """λB∇R(U), (B, n) → (B, n); differentiable."""
        scale = self.prior.strength * float(self.rows)

        def value(point: Tensor) -> Tensor:
            pieces = {name: v.reshape(v.shape[0], -1) for name, v in split(point, self.layout).items()}
            return self.prior.value(pieces, mask)

        found: Tensor = torch.func.grad(value)(u)
        return scale * found

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        ready = self.inner.prepare(tuple(t.squeeze(0) for t in theta[1:]))
        return Prepared((ready.tensors[0].unsqueeze(0),), Certificate(None, ready.certificate.convex))

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        mask, p, q, *rest = (t.squeeze(0) for t in theta)
        gamma, u = prepared.tensors[0].squeeze(0), z.reshape(self.rows, -1)
        slope = multiply(u, p) + q + self.gradient(u, mask)
        return self.inner.prox(gamma, rest)(u - gamma[:, None] * slope).reshape(1, -1)

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z.reshape(self.rows, -1)

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[2].new_zeros(1, self.dimension)


def equilibrate(
    splitting: Splitting, layout: Layout, options: Options, theta: Theta, z0: Tensor, valid: Tensor, tolerance: float
) -> tuple[Equilibrated, FixedPoint]:
    """The coupled equilibrium of a batch, from the solutions without the prior; per sample like any other.

    Samples that are not valid take no part in R. Where the iteration fails, all samples do.
    """
    prior = options.coupling
    assert prior is not None
    assert isinstance(splitting, ForwardBackward)  # `planned` refuses the others
    rows = z0.shape[0]
    coupled = Coupled(splitting, prior, layout, rows)
    folded = tuple(t.unsqueeze(0) for t in (valid.to(z0.dtype), *theta))

    def solve(start: Tensor, parameters: Theta, prepared: Prepared | None) -> tuple[Iterate, Prepared]:
        own = tuple(t.squeeze(0) for t in parameters[1:])
        alone = forward_solve(splitting, None, tolerance=tolerance, max_steps=options.max_steps)
        u, _ = alone(start.reshape(rows, -1), own, None)
        return _converge(coupled, u.z.nan_to_num(0.0, 0.0, 0.0), parameters, options, tolerance)

    record = GradientRecord(None if options.gradient_tolerance is None else options.gradient_limit(tolerance))
    problem = FixedPoint(splitting=coupled, solve=solve, tolerance=tolerance, record=record)
    found = options.adjoint.equilibrate(problem, z0.reshape(1, -1), folded, None)
    shared = {name: getattr(found, name).expand(rows) for name in ("residual", "steps", "converged", "finite")}
    ready = Prepared((), Certificate(None, splitting.prepare(tuple(t.detach() for t in theta)).certificate.convex))
    failed = found.failed.expand(rows) | ~valid
    return replace(found, z=found.z.reshape(rows, -1), failed=failed, prepared=ready, **shared), problem


def _converge(
    coupled: Coupled, u: Tensor, theta: Theta, options: Options, tolerance: float
) -> tuple[Iterate, Prepared]:
    """Anderson-accelerated steps from u, the step shortened by the prior's curvature, and further where they fail."""
    ready = coupled.prepare(theta)
    gamma = ready.tensors[0]
    curvature = _curvature(coupled, u, theta[0].squeeze(0))
    best: tuple[Iterate, Prepared] | None = None
    for k in range(TRIES):
        part = Prepared((gamma / (1.0 + gamma * curvature) / SHRINK**k,), ready.certificate)
        margin = u.new_full((1,), MARGIN / SHRINK**k)
        stop = Stop(tolerance=tolerance, max_steps=options.max_steps, margin=margin)

        def restrict(rows: Tensor | None, part: Prepared = part) -> Map:
            return lambda z: coupled.step(z, theta, part)

        done = Anderson().run(restrict, u.reshape(1, -1), stop)
        if best is None or bool(done.residual < best[0].residual):
            best = done, part
        if bool(done.converged.all()):
            break
    assert best is not None
    return best


def _curvature(coupled: Coupled, u: Tensor, mask: Tensor) -> Tensor:
    """An estimate of the largest curvature of λB·R at U, by a few power iterations on its Hessian."""
    direction = torch.randn(u.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(u)
    size = u.new_zeros(())
    for _ in range(8):
        direction = direction / direction.norm().clamp_min(torch.finfo(u.dtype).tiny)
        (direction,) = torch.func.vjp(lambda point: coupled.gradient(point, mask), u)[1](direction)
        size = direction.norm()
    return size


def planned(plan: Plan, prior: HSIC) -> Plan:
    """The plan with a prior that couples the batch.

    Raises:
        CompileError: it names a variable that the program lacks, or the map is not forward–backward.
    """
    unknown = [name for name in prior.between or () if name not in plan.layout.names]
    if unknown:
        found = f"HSIC between {prior.between}, but the program has no variable {unknown[0]!r}"
        raise CompileError(message(found, f"names among {', '.join(plan.layout.names)}", "name two of the variables"))
    if not isinstance(plan.splitting, ForwardBackward):
        fix = "write the program with terms on the variables themselves and one quadratic, without select="
        raise CompileError(message(f"a batch-coupled prior on a {plan.name} map", "a forward–backward map", fix))
    between = "every two entries" if prior.between is None else " and ".join(prior.between)
    text = f"λB∇R(U) joins the forward step in training, R = HSIC of {between} over the batch, λ = {prior.strength:g}"
    lines = (*plan.lines, ("coupled", text), ("certified", "NO: R is not convex, and a sample depends on its batch"))
    return replace(plan, name=f"{plan.name}, batch-coupled in training (not certified)", lines=lines)
