"""Monotone inclusions with constraints, 0 ∈ Fx + q + Kᵀ∂g(Kx + b), F not symmetric: Douglas–Rachford in graph form.

The map is that of `douglas_rachford`, with an inverse of (DF + σ + KᵀRK) in place of a symmetric factor; only the
monotonicity of F in the metric D is used. g is a sum over rows that D does not separate, so that D∂g = ∂(Dg).
Sources: Lions and Mercier 1979; Stellato et al., *OSQP* (2020), section 3 (the graph form).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Array, Frozen
from opteq_cvx.ir.param import ParamExpr
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting import asked, blocks
from opteq_cvx.splitting.balance import balance
from opteq_cvx.splitting.contract import Certificate, Prepared, Splitting, Theta
from opteq_cvx.splitting.douglas_rachford import EQUALITY
from opteq_cvx.splitting.graph_form import GraphForm
from opteq_cvx.splitting.inclusion import ROUNDING, times
from opteq_cvx.splitting.jacobians import diagonalize, jacobians
from opteq_cvx.splitting.linearization import AutogradLinearization, Linearization
from opteq_cvx.splitting.optimality import GraphLinearization, Optimality, worthwhile
from opteq_cvx.splitting.saddle import Proximal, Saddle
from opteq_cvx.splitting.scaling import HIGH, LOW, curvature, equilibrate
from opteq_cvx.splitting.sizes import optimality
from opteq_cvx.splitting.system import matmul

OPTIONS = asked.DouglasRachford()  # its defaults
INVERSE_WORK = 2e9  # R is not rebalanced where the inverses of all samples cost more flops than this


@dataclass(frozen=True, slots=True, eq=False)
class GraphInclusion(Frozen, Splitting):
    """theta = (F, q, K, b, *block data); prepared = (σ, R, H⁻¹, moved); state (√σ x, √R v) of length n + m.

    Attributes:
        form: the proximal terms on rows of Kx + b.
        matrix: F as an expression.
        metric: D for each coordinate, `rows` for each row.
        certify: whether a negative margin makes a sample fail as not convex.
    """

    form: GraphForm
    matrix: ParamExpr
    metric: Array
    rows: Array
    certify: bool = True

    @property
    @override
    def dimension(self) -> int:
        return self.form.layout.n + self.form.m

    @property
    @override
    def adaptive(self) -> bool:
        return True

    @property
    @override
    def unlimited(self) -> tuple[bool, ...]:
        return (*(False for _ in range(4)), *(u for b in self.form.blocks for u in b.unlimited))

    @override
    def theta(self, env: Environment) -> Theta:
        return (env(self.matrix), *self.form.theta(env)[1:])

    def _scales(self, like: Tensor) -> tuple[Tensor, Tensor]:
        d, rows = (torch.tensor(v.tolist(), dtype=like.dtype, device=like.device) for v in (self.metric, self.rows))
        return d, rows

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        f, q, k, *_ = theta
        scale, _ = self._scales(f)
        balanced = scale[:, None] * f
        sym = (balanced + balanced.mT) / 2
        largest = balanced.abs().maximum(balanced.mT.abs())
        d, e = equilibrate(largest, k, self.form.groups)
        c = 1.0 / curvature(largest, e).clamp(LOW, HIGH)
        weight = torch.ones(self.form.m, dtype=q.dtype, device=q.device)
        weight[torch.as_tensor(self.form.equality, device=q.device)] = EQUALITY
        convex = None
        if self.certify and f.shape[-1]:
            values = torch.linalg.eigvalsh(sym)
            convex = values[:, 0] >= -ROUNDING * torch.finfo(f.dtype).eps * balanced.abs().sum(dim=-1).amax(dim=-1)
        sigma, metric = OPTIONS.sigma / (e * e * c[:, None]), OPTIONS.rho * weight * d * d / c[:, None]
        return self._inverted(theta, sigma, metric, metric.new_ones(1, 1), self.form.certificate(theta, convex))

    def _inverted(
        self, theta: Theta, sigma: Tensor, metric: Tensor, moved: Tensor, certificate: Certificate
    ) -> Prepared:
        f, _, k, *_ = theta
        h = self._scales(f)[0][:, None] * f + torch.diag_embed(sigma) + k.mT @ (metric[:, :, None] * k)
        return Prepared((sigma, metric, torch.linalg.inv_ex(h).inverse, moved), certificate)

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        f, q, k, b, *rest = theta
        sigma, metric, inverse, _ = prepared.tensors
        d = self._scales(f)[0]
        x, v, w = self._unpack(z, prepared, rest)
        right = sigma * x - d * q + matmul(metric * (2 * w - v - b), k)
        xt = times(inverse, right)
        for _ in range(2):  # refinement against H(θ): the derivative in F and K, exact to second order
            image = d * times(f, xt) + sigma * xt + matmul(metric * matmul(xt, k.mT), k)
            xt = xt + times(inverse, right - image)
        wt = matmul(xt, k.mT) + b
        a = OPTIONS.relaxation
        return torch.cat([sigma.sqrt() * (x + a * (xt - x)), metric.sqrt() * (v + a * (wt - w))], dim=1)

    @override
    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        f, q, k, b, *rest = theta
        sigma, metric, inverse, _ = prepared.tensors
        linear, back = -self._scales(f)[0] * q, k.mT.contiguous()
        root_sigma, root, a = sigma.sqrt(), metric.sqrt(), OPTIONS.relaxation

        def advance(z: Tensor) -> Tensor:
            x, v, w = self._unpack(z, prepared, rest)
            xt = times(inverse, sigma * x + linear + matmul(metric * (2 * w - v - b), k))
            wt = matmul(xt, back) + b
            return torch.cat([root_sigma * (x + a * (xt - x)), root * (v + a * (wt - w))], dim=1)

        return advance

    @override
    def linearize(self, z: Tensor, theta: Theta, prepared: Prepared) -> Linearization:
        def function(point: Tensor) -> Tensor:
            return self.step(point, theta, prepared)

        if not worthwhile(self.form.blocks, self.form.layout.n):
            return AutogradLinearization(function, z)
        f, _, k, _, *rest = theta
        sigma, metric, *_ = prepared.tensors
        scale, rows = self._scales(f)

        def system(transposed: bool) -> Optimality:
            v = z[:, self.form.layout.n :] / metric.sqrt()
            d = diagonalize(jacobians(self.form.blocks, rest, rows / metric, v))
            slope = scale[:, None] * f
            slope = slope.mT if transposed else slope
            return Optimality.of(slope, k, metric.sqrt(), (OPTIONS.sigma / sigma).sqrt(), d, symmetric=False)

        return GraphLinearization(function, z, system, sigma, OPTIONS.relaxation)

    def _unpack(self, z: Tensor, prepared: Prepared, rest: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """x, v and w = prox_{Dg/R}(v)."""
        sigma, metric, *_ = prepared.tensors
        n = self.form.layout.n
        x, v = z[:, :n] / sigma.sqrt(), z[:, n:] / metric.sqrt()
        step = self._scales(z)[1] / metric
        return x, v, blocks.bind(self.form.blocks, self.form.m, step, rest, None)(v)

    def _residuals(self, z: Tensor, theta: Theta, prepared: Prepared) -> tuple[Tensor, ...]:
        """Relative primal, dual and complementarity errors (B,), as in `DouglasRachford`, then x, w, Dy."""
        f, q, k, b, *rest = theta
        d = self._scales(f)[0]
        x, v, w = self._unpack(z, prepared, rest)
        y = prepared.tensors[1] * (v - w)
        kx, fx, ky = matmul(x, k.mT), d * times(f, x), matmul(y, k)
        return *optimality(x, w, y, d * q, b, kx, fx, ky, self.form.groups), x, w, y

    @override
    def error(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        primal, dual, gap, *_ = self._residuals(z, theta, prepared)
        return torch.maximum(torch.maximum(primal, dual), gap)

    @override
    def rebalance(self, z: Tensor, theta: Theta, prepared: Prepared) -> tuple[Tensor, Prepared] | None:
        if z.shape[0] * self.form.layout.n**3 > INVERSE_WORK:
            return None
        primal, dual, _, x, w, y = self._residuals(z, theta, prepared)
        sigma, metric, _, moved = prepared.tensors
        ratio = balance(primal, dual, moved[:, 0])
        if ratio is None:
            return None
        metric = metric * ratio[:, None]
        state = torch.cat([sigma.sqrt() * x, metric.sqrt() * (w + y / metric)], dim=1)
        return state, self._inverted(theta, sigma, metric, moved * ratio[:, None], prepared.certificate)

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z[:, : self.form.layout.n] / prepared.tensors[0].sqrt()

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[1].new_zeros(batch, self.dimension)

    @override
    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        metric, rows = prepared.tensors[1], self._scales(z)[1]
        x, v, w = self._unpack(z, prepared, theta[4:])
        part = Proximal(self.form.blocks, self.form.m, None, True)
        return Saddle(part, x, w, metric * (v - w) / rows, rows / metric)
