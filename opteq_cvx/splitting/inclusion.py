"""Monotone inclusions 0 ∈ ∂f(u) + Fu + q with F not symmetric: Peaceman–Rachford, Douglas–Rachford or plain steps.

With y = prox_{αf}(u − α(Fu + q)) the map is u⁺ = u + G(y − u):
    G = I               forward–backward, a contraction for α < 2m/‖F‖²;
    G = 2(I + αF)⁻¹     Peaceman–Rachford, a contraction for every α where F is strongly monotone;
    G = (I + αF)⁻¹      Douglas–Rachford, averaged for every α.
The last two are the usual maps of s = (I + αF)u + αq, written in u. A fixed point has y = u whatever G and α are: both
carry no gradient. Sources: Lions and Mercier 1979; Winston and Kolter, arXiv 2006.08591, section 3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Array, Frozen
from opteq_cvx.ir.param import ParamExpr
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting import blocks
from opteq_cvx.splitting.contract import Prepared, Splitting, Theta
from opteq_cvx.splitting.saddle import Proximal, Saddle
from opteq_cvx.splitting.structure import Structure

ROUNDING = 1e3  # a margin above −ROUNDING·eps·‖F‖ counts as nonnegative
STRONG = 1e-6  # a margin below this share of ‖F‖ is not relied on
EXACT = 512  # up to this n the factor of contraction is computed for several steps, beyond it is bounded
PRODUCTS = 2.0  # what a step with G costs, in plain steps


@dataclass(frozen=True, slots=True, eq=False)
class MonotoneInclusion(Frozen, Splitting):
    """theta = (F, q, *block data), F (1|B, n, n); prepared = (α, I − αF, −αq, G); the state is u.

    Attributes:
        parts: the proximal terms on disjoint coordinates, and the linear part q.
        matrix: F as an expression.
        metric: D, one positive number for each coordinate, in which F is monotone.
        strong: a modulus of strong convexity of f, one for each coordinate.
        certify: whether a negative margin makes a sample fail as not convex.
    """

    parts: Structure
    matrix: ParamExpr
    metric: Array
    strong: Array
    certify: bool = True

    @property
    @override
    def dimension(self) -> int:
        return self.parts.layout.n

    @override
    def theta(self, env: Environment) -> Theta:
        smooth = self.parts.smooth
        return (env(self.matrix), smooth.gradient_at_zero(env), *blocks.evaluate(self.parts.blocks, env))

    @override
    def factor(self, theta: Theta) -> Theta:
        """(m, α, G, modulus, monotone) from F alone."""
        f = theta[0]
        root = torch.tensor(self.metric.tolist(), dtype=f.dtype, device=f.device).sqrt()
        balanced = root[:, None] * f / root
        strong = torch.tensor(self.strong.tolist(), dtype=f.dtype, device=f.device)
        n = f.shape[-1]
        norm = torch.linalg.matrix_norm(balanced, 2) if n else f.new_zeros(f.shape[0])
        sym = (balanced + balanced.mT) / 2 + torch.diag_embed(strong)
        margin = torch.linalg.eigvalsh(sym)[:, 0] if n else f.new_ones(f.shape[0])
        monotone = margin >= -ROUNDING * torch.finfo(f.dtype).eps * norm
        eye = torch.eye(n, dtype=f.dtype, device=f.device)
        flag = monotone[:, None, None]  # for others I + αF may be singular: they take plain steps, uncertified
        alpha, g, contraction = self._chosen(
            torch.where(flag, f, eye), torch.where(flag, balanced, eye), margin.clamp_min(0.0), norm
        )
        alpha = torch.where(monotone, alpha, 1.0 / norm.clamp_min(torch.finfo(f.dtype).tiny))
        g = torch.where(flag, g, eye)
        skewed = (root.amin() / root.amax()) if n else root.new_ones(())
        modulus = _modulus(balanced, alpha, g, margin, contraction, norm) * skewed
        return margin, alpha, g, modulus, monotone

    def _chosen(self, f: Tensor, balanced: Tensor, m: Tensor, norm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """α, G and the factor of contraction q (1 where none is certified), the cheapest for each matrix."""
        n = f.shape[-1]
        eye = torch.eye(n, dtype=f.dtype, device=f.device)
        top = norm.clamp_min(torch.finfo(f.dtype).tiny)
        best = 1.0 / top
        rate = ((1.0 - m / top) / (1.0 + m / top)).clamp(0.0, 1.0).sqrt()
        steps = [1.0 / top, 1.0 / (m * top).clamp_min(1e-12 * top * top).sqrt(), torch.ones_like(top)]
        if n <= EXACT:
            for alpha in steps:
                h = eye + alpha[:, None, None] * balanced
                reflected = torch.linalg.solve(h, 2.0 * eye - h)
                found = torch.linalg.matrix_norm(reflected, 2)
                better = found < rate
                best, rate = torch.where(better, alpha, best), torch.where(better, found, rate)
        strong = m > STRONG * top
        q = torch.where(strong, rate, torch.ones_like(rate))
        h = eye + best[:, None, None] * f
        weight = torch.where(strong, 2.0, 1.0)[:, None, None]
        g = torch.linalg.solve(h, weight * eye)
        plain, plain_rate = self._plain(balanced, m, top, eye)
        wins = plain_rate.clamp_min(1e-300).log() * PRODUCTS < q.clamp_min(1e-300).log()
        alpha = torch.where(wins, plain, best)
        g = torch.where(wins[:, None, None], eye, g)
        return alpha, g, torch.where(wins, plain_rate, q)

    def _plain(self, balanced: Tensor, m: Tensor, norm: Tensor, eye: Tensor) -> tuple[Tensor, Tensor]:
        """The step of forward–backward and its factor of contraction."""
        step = m / (norm * norm)
        rate = (1.0 - (m / norm) ** 2).clamp(0.0, 1.0).sqrt()
        if balanced.shape[-1] > EXACT:
            return step, rate
        for alpha in (torch.ones_like(norm), 1.0 / norm, 2.0 * m / (norm * norm + m * m)):
            found = torch.linalg.matrix_norm(eye - alpha[:, None, None] * balanced, 2)
            better = (found < rate) & (alpha > 0)
            step, rate = torch.where(better, alpha, step), torch.where(better, found, rate)
        return step, rate

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        f, q, *rest = theta
        margin, alpha, g, modulus, monotone = factors if factors is not None else self.factor(theta)
        eye = torch.eye(f.shape[-1], dtype=f.dtype, device=f.device)
        forward = eye - alpha[:, None, None] * f
        convex = monotone if self.certify else None
        known = torch.where(margin > 0, modulus, torch.zeros_like(modulus))
        certificate = self.parts.certificate(rest, known, convex)
        return Prepared((alpha, forward, -alpha[:, None] * q, g), certificate)

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        f, q, *rest = theta
        alpha, _, _, g = prepared.tensors
        y = self._prox(alpha, rest)(z - alpha[:, None] * (times(f, z) + q))
        return z + times(g, y - z)

    @override
    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        alpha, forward, c, g = prepared.tensors
        prox = self._prox(alpha, theta[2:])
        plain = bool((g == torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)).all())
        if forward.shape[0] == 1:
            m, n = forward[0].mT.contiguous(), g[0].mT.contiguous()
            if plain:
                return lambda z: prox(torch.addmm(c, z, m))
            return lambda z: torch.addmm(z, prox(torch.addmm(c, z, m)) - z, n)
        if plain:
            return lambda z: prox(times(forward, z) + c)
        return lambda z: z + times(g, prox(times(forward, z) + c) - z)

    def _prox(self, alpha: Tensor, rest: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        parts = self.parts
        return blocks.bind(parts.blocks, parts.layout.n, alpha, rest, parts.order)

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z

    @override
    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        f, q, *rest = theta
        alpha = prepared.tensors[0]
        pull = -(times(f, z) + q)
        y = self._prox(alpha, rest)(z + alpha[:, None] * pull)
        part = Proximal(self.parts.blocks, self.parts.layout.n, self.parts.order, False)
        return Saddle(part, z, y, pull + (z - y) / alpha[:, None], alpha)

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[1].new_zeros(batch, self.dimension)


def _modulus(balanced: Tensor, alpha: Tensor, g: Tensor, margin: Tensor, q: Tensor, norm: Tensor) -> Tensor:
    """μ with ‖u − u*‖ ≤ ‖u − T(u)‖/μ in the metric D; 0 where nothing is certified.

    With d = u − y, d/α − Fd ∈ ∂f(y) + Fy + q, so that ‖u − u*‖ ≤ ‖d‖(1 + ‖I/α − F‖/m), and d = G⁻¹(u − T(u)); for plain
    steps the contraction gives 1 − q.
    """
    n = balanced.shape[-1]
    eye = torch.eye(n, dtype=balanced.dtype, device=balanced.device)
    plain = (g == eye).flatten(1).all(dim=1)
    ratio = norm * alpha
    inverse = (1.0 + ratio) / torch.where(q < 1.0, 2.0, 1.0)
    residual = (1.0 + ratio) / alpha
    bound = inverse * (1.0 + residual / margin.clamp_min(1e-300))
    return torch.where(plain, 1.0 - q, 1.0 / bound)


def times(f: Tensor, z: Tensor) -> Tensor:
    """F z for F (1|B, n, n) and z (B, n)."""
    return z @ f[0].mT if f.shape[0] == 1 else (f @ z.unsqueeze(-1)).squeeze(-1)
