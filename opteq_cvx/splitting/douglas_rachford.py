"""Douglas–Rachford (ADMM) on the graph form, in the metric (σ, R): the general splitting.

With w = prox_{g/R}(v), (P + σ + KᵀRK) x̃ = σx − q + KᵀR(2w − v − b), w̃ = Kx̃ + b:
    x⁺ = x + α(x̃ − x),   v⁺ = v + α(w̃ − w).
At a fixed point x solves the program and y = R(v − w) are the duals of Kx + b. The state is (√σ x, √R v), in which the
map is averaged. Sources: Stellato et al., *OSQP* (2020), section 3; Eckstein & Bertsekas 1992 (relaxation).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting import asked, blocks, infeasibility, newton
from opteq_cvx.splitting.balance import balance
from opteq_cvx.splitting.contract import Certificate, Polished, Prepared, Splitting, Theta
from opteq_cvx.splitting.finishing import finished
from opteq_cvx.splitting.graph_form import GraphForm
from opteq_cvx.splitting.jacobians import diagonalize, formable, jacobians
from opteq_cvx.splitting.linearization import AutogradLinearization, Linearization
from opteq_cvx.splitting.matrices import Dense
from opteq_cvx.splitting.optimality import GraphLinearization, Optimality, worthwhile
from opteq_cvx.splitting.quadratic import ROUNDING, spectrum
from opteq_cvx.splitting.saddle import Proximal, Saddle
from opteq_cvx.splitting.scaling import bounded, curvature, equilibrate
from opteq_cvx.splitting.sizes import optimality, top
from opteq_cvx.splitting.system import System, factorize, matmul

EQUALITY = 1e3  # how much heavier equality rows weigh


@dataclass(frozen=True, slots=True, eq=False)
class DouglasRachford(Frozen, Splitting):
    """theta = (P, q, K, b, *block data); prepared = (σ, R, τ, V, λ); state (√σ x, √R v) of length n + m."""

    form: GraphForm
    options: asked.DouglasRachford = asked.DouglasRachford()  # noqa: RUF009 - frozen

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
        return self.form.theta(env)

    @override
    def factor(self, theta: Theta) -> Theta:
        """(σ, R, E, the size of P, convex, V, λ) from P and K alone; V and λ where the batch shares both."""
        p, _, k, *_ = theta
        d, e = equilibrate(p, k, self.form.groups, self.options.scaling_rounds)
        weight = torch.ones(self.form.m, dtype=p.dtype, device=p.device)
        weight[torch.as_tensor(self.form.equality, device=p.device)] = EQUALITY
        size = curvature(p, e)
        cost = bounded(size)[:, None]
        sigma, metric = self.options.sigma * cost / (e * e), self.options.rho * weight * d * d * cost
        convex = torch.ones_like(size, dtype=torch.bool)
        if not self.form.smooth.certified:
            lower, upper = spectrum(p)
            convex = lower >= -ROUNDING * torch.finfo(p.dtype).eps * upper
        if p.shape[0] > 1 or k.shape[0] > 1:
            return sigma, metric, e, size, convex
        system = factorize(p + torch.diag_embed(sigma), k.mT @ (metric[:, :, None] * k))
        return sigma, metric, e, size, convex, system.v, system.eigenvalues

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        q = theta[1]
        sigma, metric, e, size, convex, *parts = self.factor(theta) if factors is None else factors
        largest = torch.maximum(size, top(e * q.abs()))  # the cost is scaled by what P and q are, sample by sample
        ratio = bounded(largest) / bounded(size)
        certificate = self.form.certificate(theta, None if self.form.smooth.certified else convex)
        if parts:
            return Prepared((sigma, metric * ratio[:, None], ratio[:, None], *parts), certificate)
        return self._factorized(theta, sigma, metric * ratio[:, None], certificate)

    def _factorized(self, theta: Theta, sigma: Tensor, metric: Tensor, certificate: Certificate) -> Prepared:
        p, _, k, *_ = theta
        system = factorize(p + torch.diag_embed(sigma), k.mT @ (metric[:, :, None] * k))
        tau = metric.new_ones(1, 1)
        return Prepared((sigma, metric, tau, system.v, system.eigenvalues), certificate)

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        p, q, k, b, *rest = theta
        sigma, metric, tau, *parts = prepared.tensors
        x, v, w = self._unpack(z, prepared, rest)
        system, a = System(*parts), self.options.relaxation
        right = sigma * x - q + matmul(metric * (2 * w - v - b), k)
        xt = system.solve(right, tau)
        for _ in range(2):  # refinement against H(θ): the derivative in P and K, exact to second order
            image = matmul(xt, p) + sigma * xt + matmul(metric * matmul(xt, k.mT), k)
            xt = xt + system.solve(right - image, tau)
        wt = matmul(xt, k.mT) + b
        return torch.cat([sigma.sqrt() * (x + a * (xt - x)), metric.sqrt() * (v + a * (wt - w))], dim=1)

    @override
    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        _, q, k, b, *rest = theta
        sigma, metric, tau, *parts = prepared.tensors
        system, n, a = System(*parts).at(tau), self.form.layout.n, self.options.relaxation
        root_sigma, root = sigma.sqrt(), metric.sqrt()
        prox = blocks.bind(self.form.blocks, self.form.m, 1.0 / metric, rest, None)
        back = k.mT.contiguous()

        def advance(z: Tensor) -> Tensor:
            x, v = z[:, :n] / root_sigma, z[:, n:] / root
            w = prox(v)
            xt = system(sigma * x - q + matmul(metric * (2 * w - v - b), k))
            wt = matmul(xt, back) + b
            return torch.cat([root_sigma * (x + a * (xt - x)), root * (v + a * (wt - w))], dim=1)

        return advance

    @override
    def linearize(self, z: Tensor, theta: Theta, prepared: Prepared) -> Linearization:
        def function(point: Tensor) -> Tensor:
            return self.step(point, theta, prepared)

        if not worthwhile(self.form.blocks, self.form.layout.n):
            return AutogradLinearization(function, z)
        p, _, k, _, *rest = theta
        sigma, metric, *_ = prepared.tensors

        def system(transposed: bool) -> Optimality:
            v = z[:, self.form.layout.n :] / metric.sqrt()
            d = diagonalize(jacobians(self.form.blocks, rest, 1.0 / metric, v))
            return Optimality.of(p, k, metric.sqrt(), (self.options.sigma / sigma).sqrt(), d, symmetric=True)

        return GraphLinearization(function, z, system, sigma, self.options.relaxation)

    @override
    def error(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return self.gauge(theta, prepared)(z)

    @override
    def gauge(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        unpack = self._unpacking(prepared, theta[4:])

        def error(z: Tensor) -> Tensor:
            x, v, w = unpack(z)
            primal, dual, gap = self._optimality(x, w, prepared.tensors[1] * (v - w), theta)
            return torch.maximum(torch.maximum(primal, dual), gap)

        return error

    @override
    def rebalance(self, z: Tensor, theta: Theta, prepared: Prepared) -> tuple[Tensor, Prepared] | None:
        if not self.options.adaptive:
            return None
        primal, dual, _, x, w, y = self._residuals(z, theta, prepared)
        ratio = balance(primal, dual, prepared.tensors[2][:, 0])
        if ratio is None:
            return None
        after = self._rescaled(theta, prepared, ratio)
        return self._state(x, w, y, after), after

    def _rescaled(self, theta: Theta, prepared: Prepared, ratio: Tensor) -> Prepared:
        """The map with R multiplied by `ratio` (B,)."""
        sigma, metric, tau, v, eigenvalues = prepared.tensors
        metric = metric * ratio[:, None]
        if v.shape[0] == 1:
            return Prepared((sigma, metric, tau * ratio[:, None], v, eigenvalues), prepared.certificate)
        return self._factorized(theta, sigma, metric, prepared.certificate)

    def _state(self, x: Tensor, w: Tensor, y: Tensor, prepared: Prepared) -> Tensor:
        """The state with these x, w = prox_{g/R}(v) and y = R(v − w)."""
        sigma, metric, *_ = prepared.tensors
        return torch.cat([sigma.sqrt() * x, metric.sqrt() * (w + y / metric)], dim=1)

    @override
    def polish(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float, steps: int) -> Polished | None:
        n, m = self.form.layout.n, self.form.m
        if not (self.options.newton and formable(self.form.blocks)) or not newton.affordable(
            z.shape[0] * n * n * (n + m), steps
        ):
            return None
        p, q, k, b, *rest = theta
        sigma, metric, *_ = prepared.tensors
        x, v, w = self._unpack(z, prepared, theta[4:])

        def residuals(x: Tensor, w: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return self._optimality(x, w, y, theta)

        program = newton.Program(self.form.blocks, Dense(p, k), q, b, rest)
        start = (x, metric * (v - w))
        done = newton.finish(program, sigma, metric, start, residuals, tolerance=tolerance, steps=steps)
        done = finished(self.form.blocks, (p, q), (k, b), rest, done, tolerance=tolerance, steps=steps)
        found = Polished(self._state(done.x, done.w, done.y, prepared), done.steps, done.infeasible, done.unbounded)
        held = self.error(found.z, theta, prepared)
        blurred = (done.error <= tolerance) & ~(held <= tolerance)
        if not bool(blurred.any()):
            return found
        other = torch.where(blurred[:, None], done.metric, metric)
        after = self._factorized(theta, sigma, other, prepared.certificate)
        return replace(found, z=self._state(done.x, done.w, done.y, after), prepared=after)

    @override
    def drift(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float) -> tuple[Tensor, Tensor]:
        found = self.ray(z, theta, prepared, tolerance)
        return found.infeasible, found.unbounded

    def ray(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float) -> infeasibility.Drift:
        """What the drift of the step at z certifies."""
        metric = prepared.tensors[1]
        after = self.runner(theta, prepared)(z)
        x, v, w = self._unpack(z, prepared, theta[4:])
        x_after, v_after, w_after = self._unpack(after, prepared, theta[4:])
        dy = metric * ((v_after - w_after) - (v - w))
        return infeasibility.certify(self.form.blocks, theta, w, metric * (v - w), x_after - x, dy, tolerance)

    def _residuals(self, z: Tensor, theta: Theta, prepared: Prepared) -> tuple[Tensor, ...]:
        """Relative primal ‖Kx + b − w‖, dual ‖Px + q + Kᵀy‖ and gap |xᵀ(Px + q) + yᵀ(w − b)| (B,), then x, w, y.

        Residuals are in the maximum norm. y is a subgradient of g at w, so the three vanish exactly at a solution.
        """
        x, v, w = self._unpack(z, prepared, theta[4:])
        y = prepared.tensors[1] * (v - w)
        return *self._optimality(x, w, y, theta), x, w, y

    def _optimality(self, x: Tensor, w: Tensor, y: Tensor, theta: Theta) -> tuple[Tensor, Tensor, Tensor]:
        p, q, k, b, *_ = theta
        return optimality(x, w, y, q, b, matmul(x, k.mT), matmul(x, p), matmul(y, k), self.form.groups)

    def _unpack(self, z: Tensor, prepared: Prepared, rest: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """x, v and w = prox_{g/R}(v)."""
        return self._unpacking(prepared, rest)(z)

    def _unpacking(
        self, prepared: Prepared, rest: Sequence[Tensor]
    ) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
        """The same as a function of z."""
        sigma, metric, *_ = prepared.tensors
        n, root_sigma, root = self.form.layout.n, sigma.sqrt(), metric.sqrt()
        prox = blocks.bind(self.form.blocks, self.form.m, 1.0 / metric, rest, None)

        def unpack(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            v = z[:, n:] / root
            return z[:, :n] / root_sigma, v, prox(v)

        return unpack

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z[:, : self.form.layout.n] / prepared.tensors[0].sqrt()

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[1].new_zeros(batch, self.dimension)

    @override
    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        metric = prepared.tensors[1]
        x, v, w = self._unpack(z, prepared, theta[4:])
        return Saddle(Proximal(self.form.blocks, self.form.m, None, True), x, w, metric * (v - w), 1.0 / metric)

    @override
    def nudge(self, theta: Theta, prepared: Prepared, tilt: Tensor) -> tuple[Theta, Prepared]:
        n = self.form.layout.n
        if bool(tilt[:, n:].any()):
            raise UnsupportedError(message("a gradient of multipliers", "one of the variables", "use Implicit()"))
        return (theta[0], theta[1] + prepared.tensors[0].sqrt() * tilt[:, :n], *theta[2:]), prepared
