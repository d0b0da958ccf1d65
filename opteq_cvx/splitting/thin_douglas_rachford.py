"""Douglas–Rachford where P + σ + KᵀRK is a diagonal plus few rows: its inverse by Woodbury, nothing factored densely.

    w = prox_{g/R}(v), x̃ = H⁻¹(σx − q + KᵀR(2w − v − b)), H = Δ + Vᵀ diag(ω) V:
Δ holds σ, the diagonal of P and K's rows of one entry, V the dense rows of P and of K. A new R costs O(nr²) for each
sample, so it is found anew at every change; nothing n × n or m × n is formed.
Sources: as `douglas_rachford`; Woodbury, see `thin_form`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms import Trait
from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting import asked, blocks, infeasibility, newton
from opteq_cvx.splitting.balance import balance
from opteq_cvx.splitting.contract import Certificate, Polished, Prepared, Splitting, Theta
from opteq_cvx.splitting.douglas_rachford import EQUALITY
from opteq_cvx.splitting.finishing import finished
from opteq_cvx.splitting.groups import Rows, mean_of, shared
from opteq_cvx.splitting.intervals import polyhedral
from opteq_cvx.splitting.jacobians import diagonalize, formable, jacobians
from opteq_cvx.splitting.linearization import AutogradLinearization, Linearization
from opteq_cvx.splitting.optimality import GraphLinearization
from opteq_cvx.splitting.saddle import Proximal, Saddle
from opteq_cvx.splitting.scaling import HIGH, LOW, amax, bounded, safe_sqrt
from opteq_cvx.splitting.sizes import optimality, top
from opteq_cvx.splitting.structure import Structure
from opteq_cvx.splitting.thin_form import Inverse, Thin, ThinForm, woodbury
from opteq_cvx.splitting.thin_matrices import ThinMatrices, beside
from opteq_cvx.splitting.thin_optimality import ThinOptimality

FIXED = 7  # tensors of θ before the blocks
BARE = 1e-2
"""σ of coordinates that only dense rows hold, as a share of what the rows put on the diagonal of H. Were σ there as
small as elsewhere, Woodbury's formula would take the difference of numbers of the size 1/σ: wrong by 1e-4 in float64,
useless in float32. Source: Yip, SIAM J. Sci. Stat. Comput. 7 (1986), on the stability of the formula."""


@dataclass(frozen=True, slots=True)
class ThinPart(Proximal):
    """g on the rows of Kx + b; θ as `ThinForm` has it."""

    form: ThinForm

    @override
    def data(self, theta: Sequence[Tensor]) -> Sequence[Tensor]:
        return theta[FIXED:]

    @override
    def slope(self, x: Tensor, theta: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return Thin(self.form, *theta[2:FIXED]).curved(x), theta[0]

    @override
    def diagonal(self, theta: Sequence[Tensor]) -> Tensor | None:
        return theta[2]

    @override
    def image(self, x: Tensor, theta: Sequence[Tensor]) -> Tensor:
        return Thin(self.form, *theta[2:FIXED]).image(x) + theta[1]

    @override
    def back(self, y: Tensor, theta: Sequence[Tensor]) -> Tensor:
        return Thin(self.form, *theta[2:FIXED]).back(y)


@dataclass(frozen=True, slots=True, eq=False)
class ThinDouglasRachford(Frozen, Splitting):
    """theta as `ThinForm` has it; prepared = (σ, R, τ, Δ⁻¹, M), R relative to its start by τ; state (√σ x, √R v)."""

    form: ThinForm
    options: asked.DouglasRachford = asked.DouglasRachford()  # noqa: RUF009 - frozen

    @property
    @override
    def dimension(self) -> int:
        return self.form.layout.n + self.form.graph.m

    @property
    @override
    def adaptive(self) -> bool:
        return True

    @property
    @override
    def unlimited(self) -> tuple[bool, ...]:
        return (*(False for _ in range(FIXED)), *(u for b in self.form.graph.blocks for u in b.unlimited))

    @override
    def theta(self, env: Environment) -> Theta:
        return self.form.theta(env)

    def thin(self, theta: Theta) -> Thin:
        """P and K at the values of θ."""
        return Thin(self.form, *theta[2:FIXED])

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        thin, graph = self.thin(theta), self.form.graph
        diagonal = thin.d + (thin.c[:, :, None] * thin.u.square()).sum(1)
        d, e = equilibrate(thin, diagonal, graph.groups, self.options.scaling_rounds)
        weight = torch.ones(graph.m, dtype=d.dtype, device=d.device)
        weight[torch.as_tensor(graph.equality, device=d.device)] = EQUALITY
        size = (e.square() * diagonal).mean(dim=1)
        sigma = self.options.sigma * bounded(size)[:, None] / (e * e)
        cost = bounded(torch.maximum(size, top(e * theta[0].abs())))[:, None]
        certificate = Structure(graph.layout, graph.smooth, graph.blocks, None).certificate(theta[FIXED:], None, None)
        return self._factorized(thin, sigma, self.options.rho * weight * d * d * cost, d.new_ones(1, 1), certificate)

    def _factorized(self, thin: Thin, sigma: Tensor, metric: Tensor, tau: Tensor, certificate: Certificate) -> Prepared:
        single, full = thin.split(metric)
        sigma = self._lifted(thin, sigma, full)
        delta = thin.d + sigma + thin.scatter(single * thin.s.square())
        flat, m, _ = woodbury(delta, thin.rows(), beside(thin.c.clamp_min(0.0), full))
        return Prepared((sigma, metric, tau, flat, m), certificate)

    def _lifted(self, thin: Thin, sigma: Tensor, full: Tensor) -> Tensor:
        """σ, where only dense rows hold a coordinate in proportion to them."""
        if not self.form.bare.size:
            return sigma
        height = (thin.c.clamp_min(0.0)[:, :, None] * thin.u.square()).sum(1)
        height = BARE * (height + (full[:, :, None] * thin.a.square()).sum(1))
        bare = torch.zeros_like(sigma[0], dtype=torch.bool)
        bare[torch.as_tensor(self.form.bare.copy(), device=sigma.device)] = True
        return torch.where(bare & (height > 0), height, sigma)

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        q, b, thin = theta[0], theta[1], self.thin(theta)
        sigma, metric, _, flat, m = prepared.tensors
        x, v, w = self._unpack(z, prepared, theta[FIXED:])
        inverse, a = Inverse(flat, thin.rows().detach(), m), self.options.relaxation
        right = sigma * x - q + thin.back(metric * (2 * w - v - b))
        xt = inverse(right)
        for _ in range(2):  # refinement against H(θ): the derivative in P and K, exact to second order
            image = thin.curved(xt) + sigma * xt + thin.back(metric * thin.image(xt))
            xt = xt + inverse(right - image)
        wt = thin.image(xt) + b
        return torch.cat([sigma.sqrt() * (x + a * (xt - x)), metric.sqrt() * (v + a * (wt - w))], dim=1)

    @override
    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        q, b, thin = theta[0], theta[1], self.thin(theta)
        sigma, metric, _, flat, m = prepared.tensors
        inverse, n, a = Inverse(flat, thin.rows(), m), self.form.layout.n, self.options.relaxation
        root_sigma, root = sigma.sqrt(), metric.sqrt()
        prox = blocks.bind(self.form.graph.blocks, self.form.graph.m, 1.0 / metric, theta[FIXED:], None)

        def advance(z: Tensor) -> Tensor:
            x, v = z[:, :n] / root_sigma, z[:, n:] / root
            w = prox(v)
            xt = inverse(sigma * x - q + thin.back(metric * (2 * w - v - b)))
            wt = thin.image(xt) + b
            return torch.cat([root_sigma * (x + a * (xt - x)), root * (v + a * (wt - w))], dim=1)

        return advance

    @override
    def linearize(self, z: Tensor, theta: Theta, prepared: Prepared) -> Linearization:
        def function(point: Tensor) -> Tensor:
            return self.step(point, theta, prepared)

        graph = self.form.graph
        if not all(Trait.SEPARABLE in b.f.traits for b in graph.blocks) or not formable(graph.blocks):
            return AutogradLinearization(function, z)
        sigma, metric, *_ = prepared.tensors

        def system(transposed: bool) -> ThinOptimality:
            v = z[:, self.form.layout.n :] / metric.sqrt()
            spectrum = diagonalize(jacobians(graph.blocks, theta[FIXED:], 1.0 / metric, v))
            return ThinOptimality.at(self.thin(theta), metric.sqrt(), (self.options.sigma / sigma).sqrt(), spectrum)

        numbers = (self.form.rank + 1) * self.form.layout.n
        return GraphLinearization(function, z, system, sigma, self.options.relaxation, numbers)

    @override
    def error(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        primal, dual, gap, *_ = self._residuals(z, theta, prepared)
        return torch.maximum(torch.maximum(primal, dual), gap)

    @override
    def rebalance(self, z: Tensor, theta: Theta, prepared: Prepared) -> tuple[Tensor, Prepared] | None:
        if not self.options.adaptive:
            return None
        primal, dual, _, x, w, y = self._residuals(z, theta, prepared)
        sigma, metric, tau, *_ = prepared.tensors
        ratio = balance(primal, dual, tau[:, 0])
        if ratio is None:
            return None
        metric, tau = metric * ratio[:, None], tau * ratio[:, None]
        after = self._factorized(self.thin(theta), sigma, metric, tau, prepared.certificate)
        return self._state(x, w, y, after), after

    @override
    def polish(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float, steps: int) -> Polished | None:
        """Newton steps, by Woodbury where no prox couples entries."""
        graph, n = self.form.graph, self.form.layout.n
        separable = all(Trait.SEPARABLE in b.f.traits for b in graph.blocks)
        work = n * self.form.rank**2 if separable else n * n * (n + graph.m)
        if not (self.options.newton and formable(graph.blocks)) or not newton.affordable(z.shape[0] * work, steps):
            return None
        x, v, w = self._unpack(z, prepared, theta[FIXED:])
        sigma, metric, *_ = prepared.tensors
        matrices = ThinMatrices(self.thin(theta))

        def residuals(x: Tensor, w: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            products = matrices.image(x), matrices.curved(x), matrices.back(y)
            return optimality(x, w, y, theta[0], theta[1], *products, graph.groups)

        program = newton.Program(graph.blocks, matrices, theta[0], theta[1], theta[FIXED:])
        start = (x, metric * (v - w))
        done = newton.finish(program, sigma, metric, start, residuals, tolerance=tolerance, steps=steps)
        if bool((done.error > tolerance).any()) and polyhedral(graph.blocks) and newton.affordable(n**3, steps):
            p, k = self.thin(theta).dense()
            quadratic, rows = (p, theta[0]), (k, theta[1])
            done = finished(graph.blocks, quadratic, rows, theta[FIXED:], done, tolerance=tolerance, steps=steps)
        state = self._state(done.x, done.w, done.y, prepared)
        found = Polished(state, done.steps, done.infeasible, done.unbounded)
        blurred = (done.error <= tolerance) & ~(self.error(found.z, theta, prepared) <= tolerance)
        if not bool(blurred.any()):
            return found
        other = torch.where(blurred[:, None], done.metric, metric)
        after = self._factorized(self.thin(theta), sigma, other, prepared.tensors[2], prepared.certificate)
        return replace(found, z=self._state(done.x, done.w, done.y, after), prepared=after)

    def _state(self, x: Tensor, w: Tensor, y: Tensor, prepared: Prepared) -> Tensor:
        """The state with these x, w = prox_{g/R}(v) and y = R(v − w)."""
        sigma, metric, *_ = prepared.tensors
        return torch.cat([sigma.sqrt() * x, metric.sqrt() * (w + y / metric)], dim=1)

    @override
    def drift(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float) -> tuple[Tensor, Tensor]:
        thin, metric, graph = self.thin(theta), prepared.tensors[1], self.form.graph
        x, v, w = self._unpack(z, prepared, theta[FIXED:])
        x_after, v_after, w_after = self._unpack(self.runner(theta, prepared)(z), prepared, theta[FIXED:])
        dx, dy = x_after - x, metric * ((v_after - w_after) - (v - w))
        moved = ThinMatrices(thin).moved(theta[0], theta[1], dx, dy)
        found = infeasibility.judge(graph.blocks, theta[FIXED:], w, metric * (v - w), dx, dy, moved, tolerance)
        return found.infeasible, found.unbounded

    def _residuals(self, z: Tensor, theta: Theta, prepared: Prepared) -> tuple[Tensor, ...]:
        """Relative primal, dual and gap residuals (B,) as in `DouglasRachford`, then x, w, y."""
        q, b, thin = theta[0], theta[1], self.thin(theta)
        x, v, w = self._unpack(z, prepared, theta[FIXED:])
        y = prepared.tensors[1] * (v - w)
        products = thin.image(x), thin.curved(x), thin.back(y)
        return *optimality(x, w, y, q, b, *products, self.form.graph.groups), x, w, y

    def _unpack(self, z: Tensor, prepared: Prepared, rest: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """x, v and w = prox_{g/R}(v)."""
        sigma, metric, *_ = prepared.tensors
        n, graph = self.form.layout.n, self.form.graph
        x, v = z[:, :n] / sigma.sqrt(), z[:, n:] / metric.sqrt()
        return x, v, blocks.bind(graph.blocks, graph.m, 1.0 / metric, rest, None)(v)

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z[:, : self.form.layout.n] / prepared.tensors[0].sqrt()

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[0].new_zeros(batch, self.dimension)

    @override
    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        metric, graph = prepared.tensors[1], self.form.graph
        x, v, w = self._unpack(z, prepared, theta[FIXED:])
        part = ThinPart(graph.blocks, graph.m, None, True, self.form)
        return Saddle(part, x, w, metric * (v - w), 1.0 / metric)

    @override
    def nudge(self, theta: Theta, prepared: Prepared, tilt: Tensor) -> tuple[Theta, Prepared]:
        n = self.form.layout.n
        if bool(tilt[:, n:].any()):
            raise UnsupportedError(message("a gradient of multipliers", "one of the variables", "use Implicit()"))
        return (theta[0] + prepared.tensors[0].sqrt() * tilt[:, :n], *theta[1:]), prepared


def equilibrate(thin: Thin, diagonal: Tensor, groups: Sequence[Rows], rounds: int) -> tuple[Tensor, Tensor]:
    """(D (1|B, m), E (1|B, n)): row and column scales as in `scaling`, P by its `diagonal` (1|B, n).

    The largest entry of EPE is on its diagonal, since P ⪰ 0.
    """
    s, a = thin.s.abs(), thin.a.abs()
    rows = max(t.shape[0] for t in (s, a, diagonal))
    d, e = diagonal.new_ones(rows, thin.form.graph.m), diagonal.new_ones(rows, diagonal.shape[1])
    columns = torch.as_tensor(thin.form.columns.copy(), device=e.device)
    for _ in range(rounds):
        single, full = thin.split(d)
        entry = single * s * e[:, columns]
        scaled = full[:, :, None] * a * e[:, None, :]
        row = thin.joined(entry, amax(scaled, 2))
        column = (e * e * diagonal).scatter_reduce(1, columns.expand(rows, -1), entry, "amax")
        if full.shape[1]:
            column = torch.maximum(column, scaled.amax(dim=1))
        d = (d / safe_sqrt(row)).clamp(LOW, HIGH)
        d = shared(d.log(), groups, mean_of).exp() if groups else d
        e = (e / safe_sqrt(column)).clamp(LOW, HIGH)
    return d, e
