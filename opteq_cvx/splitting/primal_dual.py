"""PDHG (Chambolle–Pock, Condat–Vũ) on min ½xᵀ(D + P)x + qᵀx + f(x) + g(Kx + b), K and P only ever multiplied with.

(Small programs may form them, from products, for the Newton steps that finish what PDHG approaches slowly.)

With T = 1/(ωνC + sG), S = ω/R (C, R, G column and row sums of |K| and row sums of |P|, ω the primal weight):
    x⁺ = prox_{T(½⟨x, Dx⟩ + f)}(x − T(Px + q + Kᵀy)),   v = y + S(K(2x⁺ − x) + b),   y⁺ = v − S prox_{g/S}(v/S).
D is the diagonal of separable quadratics, which the prox absorbs; f is separable on disjoint coordinates. At a fixed
point x solves the program and y are the duals of Kx + b. The state is (x/√T, y/√S).
Convergence: T⁻¹ − KᵀSK ⪰ P makes the map 2/3-averaged (½ without P), by the Schur test νC ⪰ KᵀR⁻¹K and G ⪰ P for
ν = s = 1, and by power iteration, with a margin, for smaller ones.
Sources: Pock & Chambolle, *Diagonal preconditioning*, ICCV 2011; Condat, JOTA 158 (2013), theorem 3.1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms import Trait
from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting import asked, blocks, infeasibility, newton
from opteq_cvx.splitting.contract import Certificate, Polished, Prepared, Splitting, Theta
from opteq_cvx.splitting.graph_form import coupled
from opteq_cvx.splitting.groups import shared, top_of
from opteq_cvx.splitting.jacobians import formable
from opteq_cvx.splitting.matrices import Dense, Moved
from opteq_cvx.splitting.operators import Products
from opteq_cvx.splitting.power import largest
from opteq_cvx.splitting.saddle import Proximal, Saddle
from opteq_cvx.splitting.saddle_form import SaddleForm
from opteq_cvx.splitting.sizes import duality, feasible, optimality, stationary
from opteq_cvx.splitting.structure import Structure
from opteq_cvx.splitting.system import matmul

EXTREME = 1e6  # ω never moves further than this from 1
REBALANCE = 1.5  # ω changes when primal and dual residuals differ by more than the square of this
MARGIN = 1.05  # above what power iteration finds of ν and s, which the Schur test bounds by 1
SMALL, PULL = 128, 1e-6  # unknowns up to which Newton steps are made, and the weight of their proximal term beside 1/T
FIXED = 3  # tensors of θ before the blocks: q, b, D


@dataclass(frozen=True, slots=True)
class Point:
    """x and u ≈ x (B, n), w and y ∈ ∂g(w) (B, m), normal ∈ ∂f(u) (B, n), and Kx, Kᵀy, (D + P)x."""

    x: Tensor
    u: Tensor
    w: Tensor
    y: Tensor
    normal: Tensor
    kx: Tensor
    ky: Tensor
    px: Tensor


@dataclass(frozen=True, slots=True)
class MatrixFree(Proximal):
    """g on the rows of Kx + b, then f on x itself; θ as `PrimalDual` has it."""

    map: "PrimalDual"

    @override
    def data(self, theta: Sequence[Tensor]) -> Sequence[Tensor]:
        inner, outer, _ = self.map.parts(tuple(theta))
        return (*outer, *inner)

    @override
    def slope(self, x: Tensor, theta: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return self.map.products(tuple(theta)).curved(x) + theta[2] * x, theta[0]

    @override
    def diagonal(self, theta: Sequence[Tensor]) -> Tensor | None:
        return theta[2]

    @override
    def image(self, x: Tensor, theta: Sequence[Tensor]) -> Tensor:
        return torch.cat([self.map.products(tuple(theta)).image(x) + theta[1], x], dim=1)

    @override
    def back(self, y: Tensor, theta: Sequence[Tensor]) -> Tensor:
        m = self.map.form.m
        return self.map.products(tuple(theta)).back(y[:, :m]) + y[:, m:]


@dataclass(frozen=True, slots=True, eq=False)
class PrimalDual(Frozen, Splitting):
    """theta = (q, b, D, *data of f, *data of g, *coefficients); prepared = (T₀, S₀, sG, ω), T, S as above."""

    form: SaddleForm
    options: asked.PDHG = asked.PDHG()  # noqa: RUF009 - frozen

    @property
    @override
    def dimension(self) -> int:
        return self.form.n + self.form.m

    @property
    @override
    def adaptive(self) -> bool:
        return True

    @property
    @override
    def unlimited(self) -> tuple[bool, ...]:
        flags = (u for b in (*self.form.inner, *self.form.outer) for u in b.unlimited)
        return (*(False for _ in range(FIXED)), *flags)

    @override
    def theta(self, env: Environment) -> Theta:
        form = self.form
        data = (form.smooth.gradient_at_zero(env), form.maps.offset(env), form.diagonal.hessian(env))
        return (*data, *blocks.evaluate((*form.inner, *form.outer), env), *form.maps.tensors(env))

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        form, tape, like = self.form, self.parts(theta)[2], theta[0]
        sizes = form.sizes.bind(tuple(t.abs() for t in tape))
        r = sizes.image(like.new_ones(1, form.n))
        r = shared(r, coupled(form.outer), top_of)  # one step for all rows that a prox couples
        r = torch.where(r > 0, r, torch.ones_like(r))
        c = sizes.back(torch.ones_like(r))  # after leveling the Schur test still holds: r only grew
        g = sizes.curved(like.new_ones(1, form.n))
        products = form.maps.bind(tape)
        c, g = self._sharpened(products, r, c, g)
        weight = like.new_full((1, 1), self.options.primal_weight)
        return Prepared((c, 1.0 / r, g, weight), self._certificate(theta))

    def _sharpened(self, products: Products, r: Tensor, c: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """νC and sG: the Schur tests scaled down to what power iteration finds of the norms."""
        n, safe = self.form.n, torch.where(c > 0, c, torch.ones_like(c)).rsqrt()
        if self.form.m:
            norm = largest(lambda x: safe * products.back(products.image(safe * x) / r), n, r)
            c = c * (MARGIN * norm).clamp(1e-8, 1.0)[:, None]
        if products.curves:
            root = torch.where(g > 0, g, torch.ones_like(g)).rsqrt()
            norm = largest(lambda x: root * products.curved(root * x), n, r)
            g = g * (MARGIN * norm).clamp(1e-8, 1.0)[:, None]
        return c, g

    def _certificate(self, theta: Theta) -> Certificate:
        form, d = self.form, theta[2]
        inner, outer, _ = self.parts(theta)
        convex = d.amin(dim=1) >= 0 if form.n else None
        parts = Structure(form.layout, form.smooth, (*form.inner, *form.outer), None)
        return parts.certificate((*inner, *outer), None, convex)

    def parts(self, theta: Theta) -> tuple[Theta, Theta, Theta]:
        """What of θ belongs to f, to g, and to the maps."""
        first = FIXED + sum(len(b.exprs) for b in self.form.inner)
        second = first + sum(len(b.exprs) for b in self.form.outer)
        return theta[FIXED:first], theta[first:second], theta[second:]

    def products(self, theta: Theta) -> Products:
        """K and P at the values of θ."""
        return self.form.maps.bind(self.parts(theta)[2])

    def _steps(self, prepared: Prepared) -> tuple[Tensor, Tensor]:
        """T (1|B, n) and S (1|B, m)."""
        c, s, g, weight = prepared.tensors
        inverse = weight * c + g
        return 1.0 / torch.where(inverse > 0, inverse, torch.ones_like(inverse)), weight * s

    def _proxes(
        self, theta: Theta, t: Tensor, s: Tensor
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """prox_{T(½⟨x, Dx⟩ + f)} and prox_{g/S}."""
        form, d = self.form, theta[2]
        inner, outer, _ = self.parts(theta)
        shrink = 1.0 / (1.0 + t * d)
        on_x = blocks.bind(form.inner, form.n, t * shrink, inner, form.order)
        on_rows = blocks.bind(form.outer, form.m, 1.0 / s, outer, None)
        return lambda v: on_x(v * shrink), on_rows

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return self._map(theta, prepared, self.products(theta))(z)

    @override
    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        return self._map(theta, prepared, self.products(theta))

    def _map(self, theta: Theta, prepared: Prepared, products: Products) -> Callable[[Tensor], Tensor]:
        q, b = theta[0], theta[1]
        n, curved = self.form.n, bool(products.curves)
        t, s = self._steps(prepared)
        root_t, root_s, inverse = t.sqrt(), s.sqrt(), 1.0 / s
        on_x, on_rows = self._proxes(theta, t, s)

        def advance(z: Tensor) -> Tensor:
            x, y = z[:, :n] * root_t, z[:, n:] * root_s
            slope = products.back(y) + q
            if curved:
                slope = slope + products.curved(x)
            ahead = on_x(x - t * slope)
            v = y * inverse + products.image(2 * ahead - x) + b
            return torch.cat([ahead / root_t, (v - on_rows(v)) * root_s], dim=1)

        return advance

    @override
    def polish(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float, steps: int) -> Polished | None:
        """Newton steps where the program is so small that K and P may be formed, from their products."""
        form, at, (q, b, d) = self.form, self._point(z, theta, prepared), theta[:FIXED]
        n, m, parts = form.n, form.m, blocks.stacked((*form.outer, *form.inner))
        rows = m + sum(block.index.size for block in form.inner)
        work = z.shape[0] * n * n * (n + rows)
        if n > SMALL or not formable(parts) or not newton.affordable(work, steps):
            return None
        (t, s), (inner, outer, _), products = self._steps(prepared), self.parts(theta), self.products(theta)
        eye = torch.eye(n, dtype=z.dtype, device=z.device)
        columns = [eye[i].expand(z.shape[0], n) for i in range(n)]
        taken = [torch.as_tensor(block.index.reshape(-1).copy(), device=z.device) for block in form.inner]
        picked = torch.cat(taken) if taken else torch.zeros(0, dtype=torch.int64, device=z.device)
        k = torch.stack([torch.cat([products.image(e), e[:, picked]], dim=1) for e in columns], dim=2)
        p = torch.stack([products.curved(e) + d * e for e in columns], dim=2)
        shift = torch.cat([b, b.new_zeros(b.shape[0], picked.numel())], dim=1)
        inverse = (1.0 / t)[:, picked]
        height = max(s.shape[0], inverse.shape[0])
        metric = torch.cat([s.expand(height, -1), inverse.expand(height, -1)], dim=1)

        groups = coupled(parts)

        def residuals(x: Tensor, w: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return optimality(x, w, y, q, shift, matmul(x, k.mT), matmul(x, p), matmul(y, k), groups)

        program = newton.Program(parts, Dense(p, k), q, shift, (*outer, *inner))
        start = (at.x, torch.cat([at.y, at.normal[:, picked]], dim=1))
        done = newton.finish(program, PULL / t, metric, start, residuals, tolerance=tolerance, steps=steps)
        state = torch.cat([done.x / t.sqrt(), done.y[:, :m] / s.sqrt()], dim=1)
        return Polished(state, done.steps, done.infeasible, done.unbounded)

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z[:, : self.form.n] * self._steps(prepared)[0].sqrt()

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[0].new_zeros(batch, self.dimension)

    def _point(self, z: Tensor, theta: Theta, prepared: Prepared) -> Point:
        """The point at a state, and the residuals there: K and P are applied once each way."""
        q, b, d = theta[:FIXED]
        products, n = self.products(theta), self.form.n
        t, s = self._steps(prepared)
        on_x, on_rows = self._proxes(theta, t, s)
        x, y = z[:, :n] * t.sqrt(), z[:, n:] * s.sqrt()
        kx = products.image(x)
        v = y / s + kx + b
        w = on_rows(v)
        y = s * (v - w)
        ky, px = products.back(y), products.curved(x) + d * x
        slope = px + q + ky
        pushed = x - t * (slope - d * x)
        u = on_x(pushed)
        normal = (pushed - u) / t - d * u  # ∈ ∂f(u)
        return Point(x, u, w, y, normal, kx, ky, px)

    @override
    def error(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        primal, dual, gap = self._residuals(self._point(z, theta, prepared), theta)
        return torch.maximum(torch.maximum(primal, dual), gap)

    def _residuals(self, at: Point, theta: Theta) -> tuple[Tensor, Tensor, Tensor]:
        """Relative primal ‖(Kx + b − w, x − u)‖, dual ‖Px + q + Kᵀy + n‖ and gap (B,), n ∈ ∂f(u), y ∈ ∂g(w)."""
        q, b = theta[0], theta[1]
        on_rows = feasible(at.kx + b - at.w, at.kx, b, at.w, coupled(self.form.outer))
        primal = torch.maximum(on_rows, feasible(at.x - at.u, at.x, q.new_zeros(1, 1), at.u, coupled(self.form.inner)))
        dual = stationary(at.px + q + at.ky + at.normal, at.px, q, [at.ky, at.normal])
        pairs = [(at.y * (at.w - b)).sum(1), (at.normal * at.u).sum(1)]
        return primal, dual, duality(at.x, at.px, q, pairs)

    @override
    def rebalance(self, z: Tensor, theta: Theta, prepared: Prepared) -> tuple[Tensor, Prepared] | None:
        """ω, by the balance of the residuals: more weight on the duals where Kx + b is far from w, less where not.

        Source: Goldstein, Li, Yuan, *Adaptive primal-dual splitting methods*, NeurIPS 2015, in rounds.
        """
        if not self.options.adaptive:
            return None
        c, s, g, weight = prepared.tensors
        t_root, s_root = (step.sqrt() for step in self._steps(prepared))
        x, y = z[:, : self.form.n] * t_root, z[:, self.form.n :] * s_root
        primal, dual, _ = self._residuals(self._point(z, theta, prepared), theta)
        ratio = (primal.clamp_min(1e-12) / dual.clamp_min(1e-12)).sqrt().clamp(0.1, 10.0)
        wanted = (weight[:, 0] * ratio).clamp(1.0 / EXTREME, EXTREME)
        ratio = wanted / weight[:, 0]
        moves = (ratio > REBALANCE) | (ratio < 1.0 / REBALANCE)
        if not bool(moves.any()):
            return None
        changed = torch.where(moves, wanted, weight[:, 0])[:, None]
        after = Prepared((c, s, g, changed), prepared.certificate)
        t_new, s_new = (step.sqrt() for step in self._steps(after))
        return torch.cat([x / t_new, y / s_new], dim=1), after

    @override
    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        at, (t, s) = self._point(z, theta, prepared), self._steps(prepared)
        rows = max(t.shape[0], s.shape[0])
        step = torch.cat([(1.0 / s).expand(rows, -1), t.expand(rows, -1)], dim=1)
        joint = self.form.joint
        part = MatrixFree(joint, self.dimension, blocks.inverse_order(joint, self.dimension), True, self)
        return Saddle(part, at.x, torch.cat([at.w, at.u], dim=1), torch.cat([at.y, at.normal], dim=1), step)

    @override
    def nudge(self, theta: Theta, prepared: Prepared, tilt: Tensor) -> tuple[Theta, Prepared]:
        n = self.form.n
        if bool(tilt[:, n:].any()):
            raise UnsupportedError(message("a gradient of multipliers", "one of the variables", "use Implicit()"))
        return (theta[0] + tilt[:, :n] / self._steps(prepared)[0].sqrt(), *theta[1:]), prepared

    @override
    def solvable(self, theta: Theta) -> bool:
        finite = all(Trait.HOMOGENEOUS in b.f.traits and Trait.SET not in b.f.traits for b in self.form.outer)
        return finite and bool((theta[2] > 0).all())

    @override
    def drift(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float) -> tuple[Tensor, Tensor]:
        before = self._point(z, theta, prepared)
        after = self._point(self.runner(theta, prepared)(z), theta, prepared)
        part, form = MatrixFree(self.form.joint, self.dimension, None, True, self), self.form
        products = self.products(theta)
        covered = z.new_zeros(form.n)
        for block in form.inner:
            covered[torch.as_tensor(block.index.reshape(-1).copy(), device=z.device)] = 1.0
        dx, dy = after.x - before.x, torch.cat([after.y - before.y, (after.normal - before.normal) * covered], dim=1)
        image = torch.cat([products.image(dx), dx], dim=1)
        slope = products.curved(dx) + theta[2] * dx
        metric = prepared.tensors[1]
        reach = torch.cat([1.0 / metric, metric.new_ones(metric.shape[0], form.n)], dim=1)
        size = prepared.tensors[0].amax(1) + 1.0
        linear = Moved(
            q=theta[0],
            b=torch.cat([theta[1], theta[1].new_zeros(theta[1].shape[0], form.n)], dim=1),
            kx=image,
            ky=part.back(dy, theta),
            px=slope,
            row_size=reach,
            k_size=size,
            p_size=(theta[2].abs() + prepared.tensors[2]).amax(1) + 1.0,
        )
        w = torch.cat([before.w, before.u], dim=1)
        y = torch.cat([before.y, before.normal * covered], dim=1)
        found = infeasibility.judge(form.joint, part.data(theta), w, y, dx, dy, linear, tolerance)
        return found.infeasible, found.unbounded
