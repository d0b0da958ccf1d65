"""Block-diagonal systems, solved part by part."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.krylov.automatic import DENSE, Automatic
from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System, norms, relative
from opteq_cvx.adjoint.krylov.direct import Direct
from opteq_cvx.splitting.linearization import BlockDiagonal, Linearization


def by_parts(jacobian: BlockDiagonal, solver: LinearSolver) -> "ByParts":
    """The solver of a block-diagonal system: its parts are nearly singular by design, so small ones are factored."""
    small = isinstance(solver, Automatic) and jacobian.length <= DENSE
    return ByParts(inner=Direct() if small else solver)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByParts(LinearSolver):
    """Solve each part of a `BlockDiagonal` by `inner`; the residual is that of the whole."""

    inner: LinearSolver

    @override
    def solve(self, system: System, v: Tensor, *, tolerance: Tensor | float, max_steps: int) -> Linear:
        whole = system.jacobian
        assert isinstance(whole, BlockDiagonal)
        answers = []
        for i, piece in enumerate(v.split(whole.length, dim=1)):

            def restrict(rows: Tensor, i: int = i) -> Linearization:
                found = system.restrict(rows)
                assert isinstance(found, BlockDiagonal)
                return found.parts[i]

            part = System(whole.parts[i], system.transposed, restrict)
            answers.append(self.inner.solve(part, piece.contiguous(), tolerance=tolerance, max_steps=max_steps))
        w = torch.cat([a.w for a in answers], dim=1)
        squares = [
            (a.residual * norms(piece)).square() for a, piece in zip(answers, v.split(whole.length, dim=1), strict=True)
        ]
        residual = relative(torch.stack(squares).sum(0).sqrt(), norms(v))
        steps = torch.stack([a.steps for a in answers]).amax(0)
        return Linear(w, residual, steps, torch.stack([a.converged for a in answers]).all(0))
