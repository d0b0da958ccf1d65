"""Shared by the adjoint tests: equilibria of toys as functions of θ, and random θ."""

from collections.abc import Callable

import torch
from torch import Tensor

from opteq_cvx.adjoint.implicit import Implicit
from opteq_cvx.adjoint.mode import AdjointMode, Equilibrated
from opteq_cvx.adjoint.problem import FixedPoint, by_iteration
from opteq_cvx.adjoint.record import GradientRecord
from opteq_cvx.iterate.contract import Stop
from opteq_cvx.iterate.plain import Plain
from tests.adjoint.toys import Unit

TIGHT = 1e-13  # so that finite differences of the fixed point mean something


def equilibrate(
    unit: Unit,
    M: Tensor,
    c: Tensor,
    mode: AdjointMode | None = None,
    *,
    tolerance: float = TIGHT,
    max_steps: int = 20000,
    valid: Tensor | None = None,
    record: GradientRecord | None = None,
    batch: int | None = None,
) -> Equilibrated:
    """The equilibrium of `unit` at θ = (M, c)."""
    problem = FixedPoint(
        splitting=unit,
        solve=by_iteration(unit, Plain(), Stop(tolerance=tolerance, max_steps=max_steps)),
        tolerance=tolerance,
        record=record or GradientRecord(),
    )
    start = unit.start(c.shape[0] if batch is None else batch, (M, c))
    return (mode or Implicit()).equilibrate(problem, start, (M, c), valid)


def function(
    unit: Unit, mode: AdjointMode | None = None, batch: int | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """(M, c) ↦ z*; M is symmetrized where the unit relies on it, so that every perturbation is admissible."""

    def f(M: Tensor, c: Tensor) -> Tensor:
        return equilibrate(unit, (M + M.mT) / 2 if unit.symmetric else M, c, mode, batch=batch).z

    return f


def parameters(
    d: int, batch: int, generator: torch.Generator, *, symmetric: bool = True, each: bool = False, norm: float = 0.8
) -> tuple[Tensor, Tensor]:
    """M (1|B, d, d) of spectral norm `norm` and c (B, d)."""
    M = torch.randn(batch if each else 1, d, d, dtype=torch.float64, generator=generator)
    M = (M + M.mT) / 2 if symmetric else M
    M = norm * M / torch.linalg.matrix_norm(M, 2)[:, None, None]
    return M, torch.randn(batch, d, dtype=torch.float64, generator=generator)
