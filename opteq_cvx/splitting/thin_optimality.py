"""The optimality system of `optimality` where P is a diagonal and few rows, K entries and few rows: no n × n matrix."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.splitting.jacobians import Spectrum
from opteq_cvx.splitting.optimality import Optimality, Regularized
from opteq_cvx.splitting.thin_form import Inverse, Thin, woodbury


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
        rows = max(thin.s.shape[0], thin.a.shape[0])
        parts = (thin.s.square(), thin.a.square().sum(dim=2))
        size = torch.cat([part.expand(rows, -1) for part in parts], dim=1)
        if thin.form.order is not None:
            size = size[:, torch.as_tensor(thin.form.order.copy(), device=size.device)]
        size = self.root.square() * size
        return torch.where(size > 0, size, 1.0)

    @override
    def regularized(self, delta: float) -> Regularized:
        thin, eps, values = self.thin, delta * self.heights(), self.spectrum.values
        single, full = thin.split(self.root.square() * (1.0 - values) / (values + eps))
        diagonal = thin.d + delta + thin.scatter(thin.s.square() * single)
        rows, samples = max(thin.u.shape[0], thin.a.shape[0]), max(thin.c.shape[0], full.shape[0])
        v = torch.cat([thin.u.expand(rows, -1, -1), thin.a.expand(rows, -1, -1)], dim=1)
        weight = torch.cat([thin.c.clamp_min(0.0).expand(samples, -1), full.expand(samples, -1)], dim=1)
        flat, m, sound = woodbury(diagonal, v, weight)
        return Regularized(self, eps, Inverse(flat, v, m), sound.expand(values.shape[0]))
