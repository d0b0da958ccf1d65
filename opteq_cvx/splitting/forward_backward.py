"""Forward–backward: u⁺ = prox_{γf}(u − γ(Pu + q)); with the step precomputed, u⁺ = prox(Mu + c): an OptEq unit.

Source: proximal gradient method, Bauschke & Combettes, *Convex Analysis and Monotone Operator Theory*, ch. 28;
as a network unit, Xie et al., arXiv 2105.13228. γ = 1/λ_max(P) carries no gradient: a fixed point does not
depend on it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms import Trait
from opteq_cvx.descent import Map, SharedSteps, Steps
from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.maps.peek import known_true
from opteq_cvx.splitting import asked, blocks, infeasibility, newton, support
from opteq_cvx.splitting.clipped import clip_of
from opteq_cvx.splitting.contract import Polished, Prepared, Splitting, Theta
from opteq_cvx.splitting.jacobians import formable
from opteq_cvx.splitting.linearization import AutogradLinearization, Linearization, SymmetricLinearization
from opteq_cvx.splitting.matrices import Dense
from opteq_cvx.splitting.quadratic import ROUNDING, spectrum
from opteq_cvx.splitting.saddle import Proximal, Saddle
from opteq_cvx.splitting.structure import Structure
from opteq_cvx.splitting.system import matmul

SIGMA, RHO = 1e-8, 1.0  # of their augmented Lagrangian, relative to the largest curvature
NEWTONS = 4.0  # steps of Newton's method from a face to the next
SETTLING = 30  # plain steps after which the iterates of an unbounded program move along a ray
PROJECTORS = ("nonneg", "nonpos", "box", "abs", "pos")  # proxes whose derivative is 0 or 1, entry by entry


@dataclass(frozen=True, slots=True, eq=False)
class ForwardBackward(Frozen, Splitting):
    """theta = (P, q, *block data), P (1|B, n, n) or its diagonal (1|B, n); prepared = (γ, M, c); the state is u.

    `strong` is a modulus of strong convexity of f that P may use up: the map contracts by (1 − γλ_min)/(1 + γ·strong).
    """

    parts: Structure
    strong: float = 0.0
    options: asked.ForwardBackward = asked.ForwardBackward()  # noqa: RUF009 - frozen

    @property
    @override
    def dimension(self) -> int:
        return self.parts.layout.n

    @property
    @override
    def descends(self) -> bool:
        return True

    @property
    @override
    def unlimited(self) -> tuple[bool, ...]:
        return (*(False for _ in range(2)), *(u for b in self.parts.blocks for u in b.unlimited))

    @override
    def theta(self, env: Environment) -> Theta:
        smooth = self.parts.smooth
        return (smooth.hessian(env), smooth.gradient_at_zero(env), *blocks.evaluate(self.parts.blocks, env))

    @override
    def factor(self, theta: Theta) -> Theta:
        lower, upper, convex = self._bounds(theta[0])
        return lower, upper, convex if convex is not None else torch.ones_like(lower, dtype=torch.bool)

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        p, q, *rest = theta
        lower, upper, convex = factors if factors is not None else self.factor(theta)
        step = self.options.step
        if known_true(upper > 0):
            gamma = step / upper
        else:  # without P every step is safe
            largest = q.abs().amax() if q.numel() else q.new_zeros(())
            free = torch.where((largest > 0) & torch.isfinite(largest), 1.0 / largest, torch.ones_like(largest))
            gamma = torch.where(upper > 0, step / upper, free)
        if p.ndim == 3:
            m = -gamma[:, None, None] * p
            m.diagonal(dim1=1, dim2=2).add_(1.0)
        else:
            m = 1.0 - gamma[:, None] * p
        modulus = gamma * (lower + self.strong) / (1.0 + gamma * self.strong)
        certificate = self.parts.certificate(rest, modulus.clamp_min(0.0), convex)
        return Prepared((gamma, m, -gamma[:, None] * q), certificate)

    def _bounds(self, p: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(λ_min, λ_max, convex) of P: by construction where the structure shows it, else numerically."""
        smooth = self.parts.smooth
        if p.ndim == 2:
            return p.amin(dim=1), p.amax(dim=1), p.amin(dim=1) >= -self.strong
        if smooth.bounds is not None:
            ones = p.new_ones(1)
            return smooth.bounds.lower * ones, smooth.bounds.upper * ones, None
        lower, upper = spectrum(p)
        if smooth.certified:
            return lower, upper, None
        return lower, upper, lower >= -self.strong - ROUNDING * torch.finfo(p.dtype).eps * upper

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        p, q, *rest = theta
        gamma = prepared.tensors[0]
        return self.prox(gamma, rest)(z - gamma[:, None] * (multiply(z, p) + q))

    @override
    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        gamma, m, c = prepared.tensors
        rest = theta[2:]

        def prox(a: float) -> Map:
            return self.prox(gamma if a == 1.0 else a * gamma, rest, inplace=True)

        if m.ndim == 2:
            return Steps(lambda z: torch.addcmul(c, z, m), prox, at_zero=c)
        by_newton = self.options.newton and self._entrywise
        newton = partial(self._newton, theta=theta, prepared=prepared) if by_newton else None
        if m.shape[0] == 1:
            clip = partial(clip_of, self.parts.blocks, self.dimension, gamma, rest)
            return SharedSteps(m[0], c, prox, newton, clip, at_zero=c)
        middle = c.unsqueeze(1)

        def gradient(z: Tensor) -> Tensor:
            return torch.baddbmm(middle.expand(z.shape[0], -1, -1), z.unsqueeze(1), m).squeeze(1)

        return Steps(gradient, prox, newton, at_zero=c)

    def _slope(self, gamma: Tensor, v: Tensor, rest: Sequence[Tensor]) -> Tensor | None:
        """The prox's derivative where one block covers all of u and knows it."""
        if len(self.parts.blocks) != 1 or self.parts.order is not None:
            return None
        (block,) = self.parts.blocks
        found = block.slope(v.reshape(v.shape[0], *block.index.shape), gamma, rest)
        return None if found is None else found.reshape(v.shape)

    @property
    def _entrywise(self) -> bool:
        return all(Trait.SEPARABLE in b.f.traits for b in self.parts.blocks)

    def _newton(self, z: Tensor, budget: float, theta: Theta, prepared: Prepared) -> Tensor | None:
        """z + (I − DM)⁻¹(T(z) − z), D the derivative of the prox: the system on the support of D, by Cholesky."""
        form = self.linearize(z, theta, prepared)
        assert isinstance(form, SymmetricLinearization)
        if form.matrix is None or form.diagonal is None:
            return None
        d, (rows, n) = form.diagonal, z.shape
        k = support.width(d)
        if support.steps_worth(k, n, form.matrix.shape[0] == 1) * NEWTONS > budget or rows * k * k > support.MOST:
            return None
        gap = self.runner(theta, prepared)(z) - z
        return z + gap + support.reduce(form.matrix, d, max(k, 1)).solve(form.apply_m(gap))

    def prox(self, gamma: Tensor, rest: Sequence[Tensor], *, inplace: bool = False) -> Callable[[Tensor], Tensor]:
        """prox of γ times the blocks at the data `rest`."""
        parts = self.parts
        return blocks.bind(parts.blocks, parts.layout.n, gamma, rest, parts.order, inplace=inplace)

    @override
    def pullback(self, z: Tensor, theta: Theta, prepared: Prepared, w: Tensor) -> Theta | None:
        p, q, *rest = theta
        gamma, m, c = prepared.tensors
        if rest or m.ndim == 2:
            return None
        slope = self._slope(gamma, multiply(z, m).add_(c), rest)
        if slope is None:
            return None
        back = slope.mul_(w).mul_(-gamma[:, None])
        dp = (z.mT @ back).unsqueeze(0) if p.shape[0] == 1 else z.unsqueeze(2) * back.unsqueeze(1)
        return dp, back if q.shape[0] == z.shape[0] else back.sum(0, keepdim=True)

    @override
    def linearize(self, z: Tensor, theta: Theta, prepared: Prepared) -> Linearization:
        gamma, m, c = prepared.tensors
        v = z * m + c if m.ndim == 2 else multiply(z, m) + c
        prox = self.prox(gamma, theta[2:])
        matrix = torch.diag_embed(m) if m.ndim == 2 else m
        if not self._entrywise:
            jacobian = AutogradLinearization(prox, v)
            return SymmetricLinearization(matrix=matrix, apply_diagonal=jacobian.rmatvec)
        if not self.parts.blocks:
            return SymmetricLinearization(matrix=matrix, diagonal=torch.ones_like(v), projector=True)
        diagonal = self._slope(gamma, v, theta[2:])
        if diagonal is None:
            diagonal = AutogradLinearization(prox, v).rmatvec(torch.ones_like(v))
        projector = all(b.f.name in PROJECTORS and b.interval is None for b in self.parts.blocks)
        return SymmetricLinearization(matrix=matrix, diagonal=diagonal, projector=projector)

    @override
    def drift(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float) -> tuple[Tensor, Tensor]:
        advance = self.runner(theta, prepared)
        for _ in range(SETTLING):
            z = advance(z)
        return torch.zeros_like(z[:, 0], dtype=torch.bool), self._unbounded(z, advance(z), theta, tolerance)

    def _unbounded(self, z: Tensor, after: Tensor, theta: Theta, tolerance: float) -> Tensor:
        """(B,) whether the last step is a ray along which the objective falls for ever."""
        p, q, *rest = theta
        n = self.dimension
        eye = torch.eye(n, dtype=z.dtype, device=z.device).unsqueeze(0)
        data = (torch.diag_embed(p) if p.ndim == 2 else p, q, eye, z.new_zeros(1, n), *rest)
        still = torch.zeros_like(z)
        y = -(matmul(z, data[0]) + q)
        return infeasibility.certify(self.parts.blocks, data, z, y, after - z, still, tolerance).unbounded

    @override
    def polish(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float, steps: int) -> Polished | None:
        """Newton steps on an augmented Lagrangian, in the form w = u on the coordinates of the blocks."""
        p, q, *rest = theta
        n, parts = self.dimension, blocks.stacked(self.parts.blocks)
        m = sum(block.index.size for block in parts)
        work = z.shape[0] * n * n * (n + m)
        if not (self.options.newton and formable(parts)) or not newton.affordable(work, steps):
            return None
        dense = torch.diag_embed(p) if p.ndim == 2 else p
        picked = [torch.as_tensor(b.index.reshape(-1).copy(), device=z.device) for b in self.parts.blocks]
        k = torch.eye(n, dtype=z.dtype, device=z.device)[torch.cat(picked)] if picked else z.new_zeros(0, n)
        program = newton.Program(parts, Dense(dense, k.unsqueeze(0)), q, z.new_zeros(1, m), rest)
        top = dense.diagonal(dim1=1, dim2=2).amax(dim=1, keepdim=True)
        scale = torch.where(top > 0, top, torch.ones_like(top))
        y = -(multiply(z, p) + q) @ k.mT

        def residuals(x: Tensor, w: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            primal = (x @ k.mT - w).norm(dim=1) / x.norm(dim=1).clamp_min(1.0)
            gradient = multiply(x, p) + q
            dual = (gradient + y @ k).norm(dim=1) / gradient.norm(dim=1).clamp_min(1.0)
            return primal, dual, torch.zeros_like(primal)

        sigma, metric = (SIGMA * scale).expand(-1, n), (RHO * scale).expand(-1, m)
        done = newton.finish(program, sigma, metric, (z, y), residuals, tolerance=tolerance, steps=steps)
        return Polished(done.x, done.steps, done.infeasible, done.unbounded)

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[1].new_zeros(batch, self.dimension)

    @override
    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        gamma, part = prepared.tensors[0], Proximal(self.parts.blocks, self.parts.layout.n, self.parts.order, False)
        y = -(multiply(z, theta[0]) + theta[1])
        w = part.prox(gamma, theta)(z + gamma[:, None] * y)
        return Saddle(part, z, w, y + (z - w) / gamma[:, None], gamma)

    @override
    def nudge(self, theta: Theta, prepared: Prepared, tilt: Tensor) -> tuple[Theta, Prepared]:
        p, q, *rest = theta
        gamma, m, _ = prepared.tensors
        q = q + tilt
        return (p, q, *rest), Prepared((gamma, m, -gamma[:, None] * q), prepared.certificate)


def multiply(z: Tensor, p: Tensor) -> Tensor:
    """Pz for z (B, n) and symmetric P (1|B, n, n), or its diagonal (1|B, n)."""
    if p.ndim == 2:
        return z * p
    return z @ p.squeeze(0) if p.shape[0] == 1 else (z.unsqueeze(1) @ p).squeeze(1)
