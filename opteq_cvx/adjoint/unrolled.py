"""Unrolled differentiation: automatic differentiation of a fixed number of plain steps."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from opteq_cvx.adjoint.equilibrium import equilibrium
from opteq_cvx.adjoint.mode import AdjointMode, Equilibrated, everything, gather, sound
from opteq_cvx.adjoint.problem import FixedPoint
from opteq_cvx.iterate.contract import Iterate
from opteq_cvx.iterate.driver import ROUNDING
from opteq_cvx.splitting.contract import Prepared, Theta


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrolled(AdjointMode):
    """z_K from K = `steps` plain steps z ← T(z, θ), differentiated step by step; every order.

    The gradient is exact for z_K with the step sizes (and metrics) held fixed. z_K need not be a fixed point:
    `converged` says whether it is, and samples that are not converged keep their gradient. For the solution the
    gradient is off by as much as z_K itself, times K‖J‖^(K−1) for contractions. Memory grows with K.

    Args:
        steps: K.
        checkpoint: recompute in backward from every `checkpoint`-th state, so that memory grows with K / checkpoint
            + checkpoint. Not inside torch.func transforms.
    """

    steps: int
    checkpoint: int | None = None

    @override
    def equilibrate(self, problem: FixedPoint, z0: Tensor, theta: Theta, valid: Tensor | None = None) -> Equilibrated:
        bare = replace(problem, solve=preparation(problem))
        constants = tuple(t.detach() for t in theta)
        found = gather(equilibrium(bare, z0.detach(), everything(z0, valid), *constants))
        start, parameters, prepared = sound(problem, found, z0.detach(), theta)

        def run(count: int) -> Callable[[Tensor], Tensor]:
            def several(z: Tensor) -> Tensor:
                for _ in range(count):
                    z = problem.step(z, parameters, prepared)
                return z

            return several

        z, span = start, self.checkpoint or self.steps
        for done in range(0, self.steps, span):
            block = run(min(span, self.steps - done))
            z = block(z) if self.checkpoint is None else checkpoint(block, z, use_reentrant=False)
        return self.judge(problem, found, z, parameters, prepared)

    def judge(
        self, problem: FixedPoint, found: Equilibrated, z: Tensor, theta: Theta, prepared: tuple[Tensor, ...]
    ) -> Equilibrated:
        """The flags of z_K: its own residual, by one more step."""
        with torch.no_grad():
            state = z.detach()
            gap = state - problem.step(state, tuple(t.detach() for t in theta), prepared)
            residual = gap.norm(dim=1) / state.norm(dim=1).clamp_min(1.0)
            modulus = found.prepared.certificate.modulus
            scale = torch.ones_like(residual) if modulus is None else modulus.nan_to_num(1.0)
            finite = torch.isfinite(residual)
            converged = residual <= (problem.tolerance * scale).clamp_min(ROUNDING * torch.finfo(z.dtype).eps)
            failed = found.failed | ~finite
            steps = torch.full_like(found.steps, self.steps)
        z = torch.where(failed[:, None], found.z, z)
        return replace(found, z=z, failed=failed, residual=residual, steps=steps, converged=converged, finite=finite)


def preparation(problem: FixedPoint) -> Callable[[Tensor, Theta, Prepared | None], tuple[Iterate, Prepared]]:
    """A solve that only prepares, so that preparing, too, runs outside of every transform."""

    def prepare(z0: Tensor, theta: Theta, prepared: Prepared | None) -> tuple[Iterate, Prepared]:
        ready = problem.splitting.prepare(theta) if prepared is None else prepared
        gap = z0 - problem.step(z0, theta, ready.tensors)
        residual = gap.norm(dim=1) / z0.norm(dim=1).clamp_min(1.0)
        finite = torch.isfinite(residual)
        steps = torch.zeros_like(residual, dtype=torch.int64)
        return Iterate(z0.clone(), residual, steps, finite, finite), ready

    return prepare
