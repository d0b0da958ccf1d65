"""Davis–Yin three-operator splitting on min h(x) + f(x) + g(x), h(x) = ½xᵀ(D + P)x + qᵀx only multiplied with.

    u = prox_{γf}(x − γ(∇h(x) + y)),   z = x + γy + λ(u − x),   x⁺ = prox_{γg}(z),   y⁺ = (z − x⁺)/γ.
f and g are functions of coordinates of x, disjoint inside each group. At a fixed point u = x solves the program, y ∈
∂g(x) and −∇h(x) − y ∈ ∂f(x). The state is (x/√γ, √γ y), of which z/√γ is the sum; in z the map is averaged for
γ < 2/L, λ < 2 − γL/2, L ≥ λ_max(D + P).
Source: Davis, Yin, *A three-operator splitting scheme and its optimization applications*, Set-Valued and Variational
Analysis 25 (2017), algorithm 1 and theorem 3.1. Without h it is Douglas–Rachford, without g forward–backward.
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
from opteq_cvx.splitting.contract import Polished, Prepared, Splitting, Theta
from opteq_cvx.splitting.jacobians import formable
from opteq_cvx.splitting.matrices import Dense, Moved
from opteq_cvx.splitting.matrix_free import smallest_ritz
from opteq_cvx.splitting.operators import Products
from opteq_cvx.splitting.power import largest
from opteq_cvx.splitting.quadratic import ROUNDING
from opteq_cvx.splitting.saddle import Proximal, Saddle
from opteq_cvx.splitting.sizes import duality, most, stationary, top
from opteq_cvx.splitting.structure import Structure
from opteq_cvx.splitting.two_groups import TwoGroups

Map = Callable[[Tensor], Tensor]
MARGIN = 1.05  # above what power iteration finds of L, which the row sums bound
EXTREME = 1e6  # γ never moves further than this from its start
REBALANCE = 1.5  # γ changes by at least this factor
SMALL = 512  # Newton steps up to so many unknowns
SIGMA, RHO = 1e-8, 1.0  # of their augmented Lagrangian, relative to the largest curvature
FIXED = 2  # tensors of θ before the blocks: q, D


@dataclass(frozen=True, slots=True)
class Point:
    """x (B, n), u ≈ x with `normal` ∈ ∂f(u), w ≈ x with y ∈ ∂g(w), and (D + P)x."""

    x: Tensor
    u: Tensor
    normal: Tensor
    w: Tensor
    y: Tensor
    px: Tensor


@dataclass(frozen=True, slots=True)
class Groups(Proximal):
    """f on the rows of its coordinates of x, then g on those of its own; θ as `DavisYin` has it."""

    map: "DavisYin"

    @override
    def data(self, theta: Sequence[Tensor]) -> Sequence[Tensor]:
        first, second, _ = self.map.parts(tuple(theta))
        return (*first, *second)

    @override
    def slope(self, x: Tensor, theta: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return self.map.products(tuple(theta)).curved(x) + theta[1] * x, theta[0]

    @override
    def diagonal(self, theta: Sequence[Tensor]) -> Tensor | None:
        return theta[1]

    @override
    def image(self, x: Tensor, theta: Sequence[Tensor]) -> Tensor:
        return self.map.gather(x)

    @override
    def back(self, y: Tensor, theta: Sequence[Tensor]) -> Tensor:
        rows = torch.as_tensor(self.map.form.picked.copy(), device=y.device)
        return y.new_zeros(y.shape[0], self.map.form.n).index_add(1, rows, y)


@dataclass(frozen=True, slots=True, eq=False)
class DavisYin(Frozen, Splitting):
    """theta = (q, D, *data of f, *data of g, *coefficients); prepared = (γ, L), both (1|B, 1); the state is 2n long."""

    form: TwoGroups
    options: asked.DavisYin = asked.DavisYin()  # noqa: RUF009 - frozen

    @property
    @override
    def dimension(self) -> int:
        return 2 * self.form.n

    @property
    @override
    def adaptive(self) -> bool:
        return True

    @property
    @override
    def unlimited(self) -> tuple[bool, ...]:
        flags = (u for b in (*self.form.first, *self.form.second) for u in b.unlimited)
        return (*(False for _ in range(FIXED)), *flags)

    @override
    def theta(self, env: Environment) -> Theta:
        form = self.form
        data = blocks.evaluate((*form.first, *form.second), env)
        return (form.smooth.gradient_at_zero(env), form.diagonal.hessian(env), *data, *form.maps.tensors(env))

    @override
    def factor(self, theta: Theta) -> Theta:
        """(L, convex), from D and P alone."""
        form, d, tape = self.form, theta[1], self.parts(theta)[2]
        high = (d + form.sizes.bind(tuple(t.abs() for t in tape)).curved(torch.ones_like(d))).amax(dim=1)
        products = form.maps.bind(tape)
        convex = d.amin(dim=1) >= 0
        if products.curves:

            def curved(x: Tensor) -> Tensor:
                return products.curved(x) + d * x

            high = torch.minimum(high, MARGIN * largest(curved, form.n, d))
            if not form.smooth.certified:
                slack = ROUNDING * torch.finfo(d.dtype).eps * high
                convex = convex & (smallest_ritz(curved, d.new_zeros(high.shape[0], form.n)) >= -slack)
        return high[:, None], convex

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        high, convex = self.factor(theta) if factors is None else factors
        first, second, _ = self.parts(theta)
        parts = Structure(self.form.layout, self.form.smooth, (*self.form.first, *self.form.second), None)
        certificate = parts.certificate((*first, *second), None, convex)
        step = self.options.step
        return Prepared((step / high.clamp_min(step), high), certificate)  # γ = min(step/L, 1) to start with

    def parts(self, theta: Theta) -> tuple[Theta, Theta, Theta]:
        """What of θ belongs to f, to g, and to the maps."""
        start = FIXED + sum(len(b.exprs) for b in self.form.first)
        stop = start + sum(len(b.exprs) for b in self.form.second)
        return theta[FIXED:start], theta[start:stop], theta[stop:]

    def products(self, theta: Theta) -> Products:
        """P at the values of θ."""
        return self.form.maps.bind(self.parts(theta)[2])

    def gather(self, x: Tensor) -> Tensor:
        """The rows of `form.joint` of x (B, n)."""
        return x.index_select(1, torch.as_tensor(self.form.picked.copy(), device=x.device))

    def _proxes(self, theta: Theta, gamma: Tensor) -> tuple[Map, Map]:
        """prox_{γf} and prox_{γg}."""
        form, (first, second, _), step = self.form, self.parts(theta), gamma[:, 0]
        one, two = form.orders
        return blocks.bind(form.first, form.n, step, first, one), blocks.bind(form.second, form.n, step, second, two)

    def _slope(self, theta: Theta) -> Map:
        """x ↦ (D + P)x."""
        products, d = self.products(theta), theta[1]
        return (lambda x: products.curved(x) + d * x) if products.curves else (lambda x: d * x)

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return self.runner(theta, prepared)(z)

    @override
    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        q, n = theta[0], self.form.n
        gamma, high = prepared.tensors
        root, share = gamma.sqrt(), self.options.relaxation * (2.0 - 0.5 * gamma * high)
        (on_f, on_g), slope = self._proxes(theta, gamma), self._slope(theta)

        def advance(z: Tensor) -> Tensor:
            x, lift = z[:, :n] * root, z[:, n:] * root  # lift is γy
            u = on_f(x - gamma * (slope(x) + q) - lift)
            ahead = x + lift + share * (u - x)
            x = on_g(ahead)
            return torch.cat([x / root, (ahead - x) / root], dim=1)

        return advance

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z[:, : self.form.n] * prepared.tensors[0].sqrt()

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[0].new_zeros(batch, self.dimension)

    def _state(self, x: Tensor, y: Tensor, gamma: Tensor) -> Tensor:
        return torch.cat([x / gamma.sqrt(), y * gamma.sqrt()], dim=1)

    def _point(self, z: Tensor, theta: Theta, prepared: Prepared) -> Point:
        """The point at a state: one gradient and both proxes."""
        gamma, n = prepared.tensors[0], self.form.n
        on_f, on_g = self._proxes(theta, gamma)
        x, y = z[:, :n] * gamma.sqrt(), z[:, n:] / gamma.sqrt()
        px = self._slope(theta)(x)
        pushed, lifted = x - gamma * (px + theta[0] + y), x + gamma * y
        u, w = on_f(pushed), on_g(lifted)
        return Point(x, u, (pushed - u) / gamma, w, (lifted - w) / gamma, px)

    @override
    def error(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        at, q = self._point(z, theta, prepared), theta[0]
        primal = torch.maximum(top(at.x - at.u), top(at.x - at.w)) / most((top(at.x), top(at.u), top(at.w)))
        dual = stationary(at.px + q + at.normal + at.y, at.px, q, [at.normal, at.y])
        gap = duality(at.x, at.px, q, [(at.normal * at.u).sum(1), (at.y * at.w).sum(1)])
        return torch.maximum(torch.maximum(primal, dual), gap)

    @override
    def rebalance(self, z: Tensor, theta: Theta, prepared: Prepared) -> tuple[Tensor, Prepared] | None:
        """γ = ‖x‖/‖y‖, the step at which x and γy have one size, and never above step/L.

        Balancing how fast the two move, as without h, lets γ collapse where h makes x slow.
        Source: Wohlberg, *ADMM penalty parameter selection by residual balancing*, arXiv 1704.06209, section 4.3.
        """
        if not self.options.adaptive:
            return None
        (gamma, high), n = prepared.tensors, self.form.n
        x, y = z[:, :n] * gamma.sqrt(), z[:, n:] / gamma.sqrt()
        sizes = [torch.linalg.vector_norm(part, dim=1, keepdim=True) for part in (x, y)]
        limit = torch.where(high > 0, self.options.step / high, torch.full_like(high, EXTREME))
        known, least = (sizes[0] > 0) & (sizes[1] > 0), limit.clamp_max(1.0) / EXTREME
        wanted = torch.where(known, sizes[0] / sizes[1].clamp_min(torch.finfo(z.dtype).tiny), gamma)
        wanted = torch.minimum(torch.maximum(wanted, least), limit)
        moves = (wanted > REBALANCE * gamma) | (wanted * REBALANCE < gamma)
        if not bool(moves.any()):
            return None
        changed = torch.where(moves, wanted, gamma)
        return self._state(x, y, changed), replace(prepared, tensors=(changed, high))

    @override
    def polish(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float, steps: int) -> Polished | None:
        """Newton steps on an augmented Lagrangian, with P formed, where it is small."""
        form, rows = self.form, z.shape[0]
        n, m = form.n, len(form.picked)
        if (
            not self.options.newton
            or n > SMALL
            or not formable(form.joint)
            or not newton.affordable(rows * n * n * (n + m), steps)
        ):
            return None
        first, second, _ = self.parts(theta)
        eye, slope = torch.eye(n, dtype=z.dtype, device=z.device), self._slope(theta)
        batch = max(t.shape[0] for t in (theta[1], *self.parts(theta)[2]))
        p = torch.stack([slope(eye[i].expand(batch, n)) for i in range(n)], dim=1)
        k = eye[torch.as_tensor(form.picked.copy(), device=z.device)].unsqueeze(0)
        at, gamma = self._point(z, theta, prepared), prepared.tensors[0]

        def residuals(x: Tensor, w: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            primal = top(self.gather(x) - w) / most((top(x), top(w)))
            px, ky = slope(x), y @ k[0]
            return primal, stationary(px + theta[0] + ky, px, theta[0], [ky]), torch.zeros_like(primal)

        curvature = p.diagonal(dim1=1, dim2=2).amax(dim=1, keepdim=True)
        scale = torch.where(curvature > 0, curvature, torch.ones_like(curvature))
        program = newton.Program(form.joint, Dense(p, k), theta[0], z.new_zeros(1, m), (*first, *second))
        sigma, metric = (SIGMA * scale).expand(-1, n), (RHO * scale).expand(-1, m)
        start = (at.x, self._rows(at.normal, at.y))
        done = newton.finish(program, sigma, metric, start, residuals, tolerance=tolerance, steps=steps)
        count = sum(b.index.size for b in form.first)
        y = torch.zeros_like(done.x).index_copy(
            1, torch.as_tensor(form.picked[count:].copy(), device=z.device), done.y[:, count:]
        )
        return Polished(self._state(done.x, y, gamma), done.steps, done.infeasible, done.unbounded)

    def _rows(self, of_f: Tensor, of_g: Tensor) -> Tensor:
        """What belongs to the rows of `form.joint`, from vectors (B, n) for f and for g."""
        count = sum(b.index.size for b in self.form.first)
        return torch.cat([self.gather(of_f)[:, :count], self.gather(of_g)[:, count:]], dim=1)

    @override
    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        at, form = self._point(z, theta, prepared), self.form
        part = Groups(form.joint, len(form.picked), None, True, self)
        return Saddle(part, at.x, self._rows(at.u, at.w), self._rows(at.normal, at.y), prepared.tensors[0][:, 0])

    @override
    def nudge(self, theta: Theta, prepared: Prepared, tilt: Tensor) -> tuple[Theta, Prepared]:
        n = self.form.n
        if bool(tilt[:, n:].any()):
            raise UnsupportedError(message("a gradient of multipliers", "one of the variables", "use Implicit()"))
        return (theta[0] + tilt[:, :n] / prepared.tensors[0].sqrt(), *theta[1:]), prepared

    @override
    def solvable(self, theta: Theta) -> bool:
        finite = all(Trait.SET not in b.f.traits and b.interval is None for b in self.form.joint)
        homogeneous = all(Trait.HOMOGENEOUS in b.f.traits for b in self.form.joint)
        return finite and homogeneous and bool((theta[1] > 0).all())

    @override
    def drift(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float) -> tuple[Tensor, Tensor]:
        before = self._point(z, theta, prepared)
        after = self._point(self.runner(theta, prepared)(z), theta, prepared)
        form, part = self.form, Groups(self.form.joint, len(self.form.picked), None, True, self)
        dx = after.x - before.x
        dy = self._rows(after.normal - before.normal, after.y - before.y)
        moved = Moved(
            q=theta[0],
            b=dy.new_zeros(1, dy.shape[1]),
            kx=self.gather(dx),
            ky=part.back(dy, theta),
            px=self._slope(theta)(dx),
            row_size=dy.new_ones(1, dy.shape[1]),
            k_size=dx.new_ones(1),
            p_size=prepared.tensors[1][:, 0],
        )
        first, second, _ = self.parts(theta)
        w, y = self._rows(before.u, before.w), self._rows(before.normal, before.y)
        found = infeasibility.judge(form.joint, (*first, *second), w, y, dx, dy, moved, tolerance)
        return found.infeasible, found.unbounded
