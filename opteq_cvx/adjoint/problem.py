"""One equilibrium z = T(z, θ) as the adjoint modes see it: how to solve it, how to linearize it, where to report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from opteq_cvx.adjoint.krylov.automatic import Automatic
from opteq_cvx.adjoint.krylov.contract import LinearSolver
from opteq_cvx.adjoint.record import GradientRecord
from opteq_cvx.descent import Map
from opteq_cvx.iterate.contract import Iterate, Iteration, Progress, Stop
from opteq_cvx.splitting.contract import Certificate, Prepared, Splitting, Theta

Solve = Callable[[Tensor, Theta, Prepared | None], tuple[Iterate, Prepared]]
"""solve(z0, theta, prepared): find a fixed point without autograd; prepare first where `prepared` is None.

The `Prepared` it returns is the one that `Splitting.step` and `primal` are to be used with at the fixed point.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearOptions:
    """How the adjoint system is solved: to ‖v − A w‖ ≤ tolerance · μ · ‖v‖.

    μ is the certified modulus, but at least 1e-3, and 1e-4 where none is certified; see `linear_solve.accuracy`.
    """

    solver: LinearSolver = field(default_factory=Automatic)
    tolerance: float
    max_steps: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FixedPoint:
    """The static part of one call. Nothing here carries a gradient.

    Args:
        splitting: T is `splitting.step(z, theta, prepared)`.
        solve: the forward solve, see `Solve`; `by_iteration` makes one.
        tolerance: that of the forward solve; the adjoint's follows it.
        prepared: what the caller already prepared for these θ, or None. Ignored where vmap folds θ into the batch.
        record: receives the estimate of the gradient's error, once.
        linear: set by the adjoint mode.
        at: the solve at another tolerance, for modes that solve again in backward; None: `solve` serves.
    """

    splitting: Splitting
    solve: Solve
    tolerance: float
    prepared: Prepared | None = None
    record: GradientRecord = field(default_factory=GradientRecord)
    linear: LinearOptions | None = None
    at: Callable[[float], Solve] | None = None

    def step(self, z: Tensor, theta: Sequence[Tensor], prepared: Sequence[Tensor]) -> Tensor:
        """T(z, θ), differentiable."""
        return self.splitting.step(z, tuple(theta), Prepared(tuple(prepared), Certificate()))


def by_iteration(
    splitting: Splitting,
    iteration: Iteration,
    stop: Stop,
    *,
    history: bool = False,
    progress: Progress | None = None,
    into: Callable[[Iterate], None] | None = None,
) -> Solve:
    """The usual solve: prepare, then iterate `splitting.runner` with the certified modulus as `Stop.margin`.

    Args:
        into: called with the `Iterate`, to see what the differentiable result does not carry (the history).
    """

    def solve(z0: Tensor, theta: Theta, prepared: Prepared | None) -> tuple[Iterate, Prepared]:
        ready = splitting.prepare(theta) if prepared is None else prepared

        def restrict(rows: Tensor | None) -> Map:
            if rows is None:
                return splitting.runner(theta, ready)
            part = Prepared(take(ready.tensors, rows), ready.certificate)
            return splitting.runner(take(theta, rows), part)

        margin = ready.certificate.modulus if stop.margin is None else stop.margin
        iterate = iteration.run(restrict, z0, replace(stop, margin=margin), history=history, progress=progress)
        if into is not None:
            into(iterate)
        return iterate, ready

    return solve


def take(tensors: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, ...]:
    """The samples `rows` of tensors (1|B, ...): what is shared stays as it is."""
    return tuple(t if t.shape[0] == 1 else t.index_select(0, rows) for t in tensors)


def mend(failed: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Replace the rows of failed samples by those of one that did not fail.

    A zero cotangent does not silence a sample: 0 · NaN is NaN, and a shared weight's gradient sums over the batch.
    """
    here = torch.arange(failed.shape[0], device=failed.device)
    source = torch.where(failed, failed.logical_not().to(torch.int8).argmax(0), here)
    return take(tensors, source)
