"""A dense solve per sample: form I − J, factor, and where that is singular take the pseudo-inverse."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System, norms, relative


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct(LinearSolver):
    """LU of I − J (B, d, d); samples whose residual is large get the minimum-norm least-squares solution by SVD.

    Singular values below `cutoff` times the largest count as zero. Cost d³ per sample and, unless the
    linearization knows its matrix, d products with Jᵀ. An inconsistent system is reported as not converged.
    """

    cutoff: float | None = None

    @override
    def solve(self, system: System, v: Tensor, *, tolerance: Tensor | float, max_steps: int) -> Linear:
        jacobian = system.jacobian.dense(v.shape[0], v)
        matrix = torch.eye(v.shape[1], dtype=v.dtype, device=v.device) - jacobian
        matrix = matrix.transpose(1, 2) if system.transposed else matrix
        factors, pivots, info = torch.linalg.lu_factor_ex(matrix)
        w = torch.linalg.lu_solve(factors, pivots, v[:, :, None]).squeeze(2)
        eps = torch.finfo(v.dtype).eps
        cutoff = self.cutoff if self.cutoff is not None else 100.0 * v.shape[1] * eps
        pivot = factors.diagonal(dim1=1, dim2=2).abs()
        singular = (info != 0) | ~torch.isfinite(w).all(1) | (pivot.amin(1) <= cutoff * pivot.amax(1))
        if bool(singular.any()):
            index = singular.nonzero().squeeze(1)
            sound = torch.isfinite(matrix[index]).all(2).all(1)
            inverse = torch.linalg.pinv(torch.where(sound[:, None, None], matrix[index], 0.0), rtol=cutoff)
            w[index] = torch.bmm(inverse, v[index][:, :, None]).squeeze(2)
        size = norms(v)
        gap = torch.bmm(matrix, w[:, :, None]).squeeze(2).sub_(v)
        ratio = relative(norms(gap), size)
        floor = 100.0 * v.shape[1] * eps
        goal = tolerance.clamp_min(floor) if isinstance(tolerance, Tensor) else max(tolerance, floor)
        return Linear(w, ratio, torch.ones_like(size, dtype=torch.int64), ratio <= goal)
