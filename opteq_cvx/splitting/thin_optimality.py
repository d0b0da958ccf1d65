"""The optimality system of `optimality` where P is a diagonal and few rows, K entries and few rows: no n × n matrix."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.splitting.jacobians import Spectrum
from opteq_cvx.splitting.optimality import Optimality, Regularized
from opteq_cvx.splitting.thin_form import Inverse, Thin, woodbury
from opteq_cvx.splitting.thin_matrices import beside


@dataclass(frozen=True, slots=True)
class ThinOptimality(Optimality):
    """P̂ and K̂ as `thin`, of which `p` and `k` are the diagonal and the dense rows; D diagonal."""

    thin: Thin

    @staticmethod
    def at(thin: Thin, root: Tensor, scale: Tensor, spectrum: Spectrum) -> "ThinOptimality":
        """From P and K themselves."""
        columns = torch.as_tensor(thin.form.columns.copy(), device=scale.device)
        column = scale[:, None, :]
        scaled = replace(
            thin, d=thin.d * scale.square(), u=thin.u * column, s=thin.s * scale[:, columns], a=thin.a * column
        )
        return ThinOptimality(scaled.d, scaled.a, root, scale, spectrum, True, scaled)

    @override
    def image(self, t: Tensor) -> Tensor:
        return self.root * self.thin.image(t)

    @override
    def back(self, y: Tensor) -> Tensor:
        return self.thin.back(self.root * y)

    @override
    def curved(self, t: Tensor) -> Tensor:
        return self.thin.curved(t)

    @override
    def heights(self) -> Tensor:
        thin = self.thin
        size = thin.joined(thin.s.square(), thin.a.square().sum(dim=2))
        size = self.root.square() * size
        return torch.where(size > 0, size, 1.0)

    @override
    def regularized(self, delta: float) -> Regularized:
        thin, eps, values = self.thin, delta * self.heights(), self.spectrum.values
        single, full = thin.split(self.root.square() * (1.0 - values) / (values + eps))
        diagonal = thin.d + delta + thin.scatter(thin.s.square() * single)
        v, weight = thin.rows(), beside(thin.c.clamp_min(0.0), full)
        flat, m, sound = woodbury(diagonal, v, weight)
        return Regularized(self, eps, Inverse(flat, v, m), sound.expand(values.shape[0]))
