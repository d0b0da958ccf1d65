"""Forward–backward without a matrix: u⁺ = prox_{γf}(u − γ(Pu + q)), P = Σ f_i K_iᵀ W_i K_i applied factor by factor.

The map of `forward_backward` for programs whose quadratic is a sum of factored pieces (convolutions, thin weights,
differences): a step costs two products with each factor, memory is that of the variables, nothing n × n is formed.
γ = 1/L with a certified L ≥ λ_max(P), by construction or from norm bounds of the factors at their present values.

Source: Bauschke & Combettes, *Convex Analysis and Monotone Operator Theory*, ch. 28; as a convolutional unit, Xie et
al., arXiv 2105.13228.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms import Trait
from opteq_cvx.descent import Map, Steps
from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting import asked, blocks
from opteq_cvx.splitting.contract import Polished, Prepared, Splitting, Theta
from opteq_cvx.splitting.forward_backward import PROJECTORS, ForwardBackward
from opteq_cvx.splitting.linearization import AutogradLinearization, Linearization, SymmetricLinearization
from opteq_cvx.splitting.pieces import Bound, Factored
from opteq_cvx.splitting.quadratic import ROUNDING
from opteq_cvx.splitting.saddle import Proximal, Saddle
from opteq_cvx.splitting.structure import Structure

SMALL = 512  # up to this many unknowns P is formed where a solve is finished by Newton steps or found unbounded
PROBES, LANCZOS = 4, 40  # random starts, and steps of each, in the search for a direction of negative curvature


@dataclass(frozen=True, slots=True, eq=False)
class FactoredForwardBackward(Frozen, Splitting):
    """theta = (*values of P's factors, q, *block data); prepared = (γ, −γq); the state is u.

    `strong` is a modulus of strong convexity of f that P may use up.
    """

    parts: Structure
    factors: Factored
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
    def head(self) -> int:
        """How many entries of theta come before the blocks' data."""
        return len(self.factors.exprs) + 1

    @property
    def certified(self) -> bool:
        """Whether P ⪰ 0 by construction: piece by piece, or term by term."""
        return self.factors.certified or self.parts.smooth.certified

    @property
    @override
    def unlimited(self) -> tuple[bool, ...]:
        return (*(False for _ in range(self.head)), *(u for b in self.parts.blocks for u in b.unlimited))

    @override
    def theta(self, env: Environment) -> Theta:
        values = (env(e) for e in self.factors.exprs)
        return (*values, self.parts.smooth.gradient_at_zero(env), *blocks.evaluate(self.parts.blocks, env))

    def split(self, theta: Sequence[Tensor]) -> tuple[Bound, Tensor, Sequence[Tensor]]:
        """P, q and the blocks' data."""
        head = self.head
        return self.factors.bind(theta[: head - 1]), theta[head - 1], theta[head:]

    @override
    def factor(self, theta: Theta) -> Theta:
        bound, q, _ = self.split(theta)
        lower, upper = bound.spectrum(q)
        convex = torch.ones_like(lower, dtype=torch.bool)
        if not self.certified and bool((lower < -self.strong).any()):
            rows = max(t.shape[0] for t in theta[: self.head - 1])
            least = smallest_ritz(bound.multiply, q.new_zeros(rows, self.dimension))
            slack = ROUNDING * torch.finfo(q.dtype).eps * upper
            convex = least >= -self.strong - slack
        return lower, upper, convex

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        q, rest = theta[self.head - 1], theta[self.head :]
        lower, upper, convex = factors if factors is not None else self.factor(theta)
        largest = q.abs().amax() if q.numel() else q.new_zeros(())
        free = torch.where((largest > 0) & torch.isfinite(largest), 1.0 / largest, torch.ones_like(largest))
        gamma = torch.where(upper > 0, self.options.step / upper, free)
        modulus = (gamma * (lower + self.strong) / (1.0 + gamma * self.strong)).clamp_min(0.0)
        return Prepared((gamma, -gamma[:, None] * q), self.parts.certificate(rest, modulus, convex))

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        bound, q, rest = self.split(theta)
        gamma = prepared.tensors[0]
        return self._prox(gamma, rest)(z - gamma[:, None] * (bound.multiply(z) + q))

    @override
    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        bound, _, rest = self.split(theta)
        gamma, c = prepared.tensors

        def prox(a: float) -> Map:
            return self._prox(gamma if a == 1.0 else a * gamma, rest, inplace=True)

        return Steps(lambda z: self._forward(z, bound, gamma, c), prox, at_zero=c, costly=True)

    def _forward(self, z: Tensor, bound: Bound, gamma: Tensor, c: Tensor | None) -> Tensor:
        """(I − γP) z + c, in as few passes over z as that takes; c None: zero."""
        ridge, known = self.factors.ridge, self.factors.known
        parts = bound.rest(z)
        if known is not None and known[1] == ridge and self.options.step == 1.0:  # γ = 1/ridge: the identity cancels
            out = c if c is not None else torch.zeros_like(z)
        else:
            scaled = z * (1.0 - ridge * gamma[:, None])
            out = scaled if c is None else scaled.add_(c)
        for factor, part in parts:
            out = torch.addcmul(out, part, gamma[:, None], value=-factor)
        return out if parts or out is not c else out.expand_as(z).clone()

    def _prox(self, gamma: Tensor, rest: Sequence[Tensor], *, inplace: bool = False) -> Callable[[Tensor], Tensor]:
        parts = self.parts
        return blocks.bind(parts.blocks, parts.layout.n, gamma, rest, parts.order, inplace=inplace)

    @override
    def linearize(self, z: Tensor, theta: Theta, prepared: Prepared) -> Linearization:
        bound, _, rest = self.split(theta)
        gamma, c = prepared.tensors
        v = self._forward(z, bound, gamma, c)
        prox = self._prox(gamma, rest)

        def apply(x: Tensor) -> Tensor:
            return self._forward(x, bound, gamma, None)

        if not all(Trait.SEPARABLE in b.f.traits for b in self.parts.blocks):
            return SymmetricLinearization(apply_matrix=apply, apply_diagonal=AutogradLinearization(prox, v).rmatvec)
        if not self.parts.blocks:
            return SymmetricLinearization(apply_matrix=apply, diagonal=torch.ones_like(v), projector=True)
        diagonal = AutogradLinearization(prox, v).rmatvec(torch.ones_like(v))
        projector = all(b.f.name in PROJECTORS and b.interval is None for b in self.parts.blocks)
        return SymmetricLinearization(apply_matrix=apply, diagonal=diagonal, projector=projector)

    def _dense(self, theta: Theta) -> tuple[ForwardBackward, Theta] | None:
        """The same map with P formed, where it is small."""
        n = self.dimension
        if n > SMALL:
            return None
        bound, q, rest = self.split(theta)
        batch = max((t.shape[0] for t in theta[: self.head - 1]), default=1)
        eye = torch.eye(n, dtype=q.dtype, device=q.device)
        rows = [bound.multiply(eye[i].expand(batch, n)) for i in range(n)]
        return ForwardBackward(self.parts, self.strong, self.options), (torch.stack(rows, dim=1), q, *rest)

    @override
    def drift(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float) -> tuple[Tensor, Tensor] | None:
        small = self._dense(theta)
        if small is None:
            return None
        map_, data = small
        return map_.drift(z, data, map_.prepare(data), tolerance)

    @override
    def polish(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float, steps: int) -> Polished | None:
        small = self._dense(theta)
        return None if small is None else small[0].polish(z, small[1], prepared, tolerance, steps)

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[self.head - 1].new_zeros(batch, self.dimension)

    @override
    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        layout = self.parts.layout
        part = Factors(self.parts.blocks, layout.n, self.parts.order, False, self)
        gamma = prepared.tensors[0]
        curved, q = part.slope(z, theta)
        y = -(curved + q)
        w = part.prox(gamma, theta)(z + gamma[:, None] * y)
        return Saddle(part, z, w, y + (z - w) / gamma[:, None], gamma)

    @override
    def nudge(self, theta: Theta, prepared: Prepared, tilt: Tensor) -> tuple[Theta, Prepared]:
        at, gamma = self.head - 1, prepared.tensors[0]
        q = theta[at] + tilt
        return (*theta[:at], q, *theta[at + 1 :]), Prepared((gamma, -gamma[:, None] * q), prepared.certificate)


@dataclass(frozen=True, slots=True)
class Factors(Proximal):
    """The proximal part of a map whose θ holds the factors of P."""

    map_: FactoredForwardBackward

    @override
    def data(self, theta: Sequence[Tensor]) -> Sequence[Tensor]:
        return theta[self.map_.head :]

    @override
    def slope(self, x: Tensor, theta: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        bound, q, _ = self.map_.split(theta)
        return bound.multiply(x), q

    @override
    def diagonal(self, theta: Sequence[Tensor]) -> Tensor | None:
        return None


def smallest_ritz(multiply: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """An estimate from above of λ_min(P) (B,): a negative value proves that P is indefinite.

    Lanczos with full orthogonalization from random vectors. Source: Golub & Van Loan, section 10.1.
    """
    rows, n = like.shape
    steps = min(LANCZOS, n)
    generator = torch.Generator().manual_seed(0)
    least = like.new_full((rows,), torch.inf)
    for _ in range(PROBES):
        v = torch.randn(n, generator=generator, dtype=torch.float64).to(like).expand(rows, n)
        basis = (v / torch.linalg.vector_norm(v, dim=1, keepdim=True)).unsqueeze(1)
        images: list[Tensor] = []
        for _ in range(steps):
            images.append(multiply(basis[:, -1]))
            r = images[-1]
            for _ in range(2):
                r = r - ((basis @ r[:, :, None]).mT @ basis).squeeze(1)
            size = torch.linalg.vector_norm(r, dim=1, keepdim=True)
            basis = torch.cat([basis, (r / size.clamp_min(torch.finfo(r.dtype).tiny)).unsqueeze(1)], dim=1)
        used = basis[:, :steps]
        small = used @ torch.stack(images, dim=1).mT
        least = torch.minimum(least, torch.linalg.eigvalsh((small + small.mT) / 2)[:, 0])
    return least


def matrix_free(
    parts: Structure, factors: Factored | None, options: asked.ForwardBackward
) -> FactoredForwardBackward | None:
    """The matrix-free map where it is asked for, or the cheaper one: convolutions, and factors that are thin enough."""
    if options.matrix == "dense" or factors is None or parts.smooth.diagonal or not factors.pieces:
        return None
    n = parts.layout.n
    cheaper = factors.convolves or (n >= WORTH and factors.flops < SHARE * 2 * n * n)
    if options.matrix == "factors" or cheaper:
        return FactoredForwardBackward(parts, factors, options=options)
    return None


WORTH, SHARE = 256, 0.5
"""From this many unknowns on, and below this share of the flops of a product with P itself, factors are applied."""
