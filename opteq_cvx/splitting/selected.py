"""Selected: the map of F + εω at ε, ε/2, ε/4 and ε/8 at once, and the solution that its fixed points extrapolate to.

The state is that of the four nodes, one after the other. With the active face fixed, u(ε) = u* + εu₁ + ε²u₂ + …, so
that the polynomial through the nodes has the value u* + O(ε⁴) at 0, and so for every derivative in the data. ε is
chosen without gradient. Source: Richardson 1911; for the path see `opteq_cvx.selection`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.ir.frozen import Frozen, size
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.param import leaves
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.contract import Certificate, Prepared, Splitting, Theta
from opteq_cvx.splitting.linearization import BlockDiagonal, Linearization
from opteq_cvx.splitting.saddle import Saddle

SHARES = (1.0, 0.5, 0.25, 0.125)


def at_zero(used: int) -> tuple[float, ...]:
    """Lagrange weights: the value at 0 of the polynomial through the last `used` nodes."""
    x = SHARES[len(SHARES) - used :]
    own = [math.prod(b / (b - a) for b in x if b != a) for a in x]
    return (*[0.0] * (len(SHARES) - used), *own)


LIMIT, NEARER, EDGE = at_zero(4), at_zero(3), at_zero(2)


@dataclass(frozen=True, slots=True, eq=False)
class Selected(Frozen, Splitting):
    """theta = (θ(0), the entries of ∂θ/∂ε that are not zero, those of ∂θ/∂ρ); prepared = (ε, ρ, *nodes' tensors).

    inner: of the combined program, `names` of its parameters ε and ρ (None where there is none).
    layout: that of F, which `primal` follows.
    head: how many entries of the inner θ come before the blocks' data; the first two are P and q.
    """

    inner: Splitting
    blocks: tuple[Block, ...]
    head: int
    names: tuple[str, str | None]
    layout: Layout
    inside: Layout

    @property
    @override
    def dimension(self) -> int:
        return len(SHARES) * self.inner.dimension

    def varies(self, name: str) -> tuple[int, ...]:
        """Which entries of the inner θ depend on a parameter: P and q, and block data by their expressions."""
        exprs = [e for block in self.blocks for e in block.exprs]
        own = [self.head + i for i, e in enumerate(exprs) if any(leaf.name == name for leaf in leaves(e))]
        return (0, 1, *own)

    @override
    def theta(self, env: Environment) -> Theta:
        first, second = self.names
        base = self._inner_theta(env, {first: 0.0} | ({second: 0.0} if second else {}))
        out = list(base)
        for name in (first, second):
            if name is None:
                continue
            raised = self._inner_theta(env, {k: float(k == name) for k in self.names if k is not None})
            out.extend(raised[i] - base[i] for i in self.varies(name))
        return tuple(out)

    def _inner_theta(self, env: Environment, numbers: dict[str, float]) -> Theta:
        values = {k: torch.full((1,), v, dtype=env.dtype, device=env.device) for k, v in numbers.items()}
        return self.inner.theta(Environment({**env.values, **values}, env.dtype, env.device, env.constants))

    def base(self, theta: Sequence[Tensor]) -> Theta:
        """θ of F alone."""
        return tuple(theta[: self._count])

    def second(self, theta: Sequence[Tensor]) -> Theta:
        """What θ gains per unit of ε: (Ω, ω, *block data)."""
        start = self._count
        return tuple(theta[start : start + len(self.varies(self.names[0]))])

    @property
    def _count(self) -> int:
        return self.head + sum(len(block.exprs) for block in self.blocks)

    def node(self, theta: Sequence[Tensor], epsilon: Tensor, rho: Tensor) -> Theta:
        """The inner θ at ε and ρ (1|B,); differentiable in theta."""
        out, place = list(theta[: self._count]), self._count
        for name, factor in zip(self.names, (epsilon, rho), strict=True):
            if name is None:
                continue
            for i in self.varies(name):
                slope = theta[place]
                out[i] = out[i] + factor.reshape(-1, *(1,) * (slope.ndim - 1)) * slope
                place += 1
        return tuple(out)

    def scales(self, theta: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The largest curvatures of F and of ω along a coordinate, (1|B,) each; 1 where there is none."""
        return _curvature(theta[0]), _curvature(self.second(theta)[0])

    def at(self, theta: Theta, relative: float) -> tuple[Tensor, Tensor]:
        """ε and ρ (1|B,) for a relative ε: ε = e·λ(P)/λ(Ω), ρ = e²·λ(P)."""
        mine, theirs = self.scales(theta)
        return relative * mine / theirs, relative**2 * mine

    def nodes(self, theta: Sequence[Tensor], epsilon: Tensor, rho: Tensor) -> list[Theta]:
        """The inner θ of the nodes; ρ falls with ε²."""
        return [self.node(theta, s * epsilon, s * s * rho) for s in SHARES]

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        epsilon, rho = self.at(theta, 1e-2 if theta[1].dtype == torch.float32 else 1e-4)
        return self.packed(epsilon, rho, [self.inner.prepare(node) for node in self.nodes(theta, epsilon, rho)])

    def packed(self, epsilon: Tensor, rho: Tensor, ready: Sequence[Prepared]) -> Prepared:
        """The nodes' tensors as one; the certificate says what holds for all of them."""
        convex, empty, unbounded = None, None, None
        for part in ready:
            found = part.certificate
            convex = found.convex if convex is None or found.convex is None else convex & found.convex
            empty = found.empty if empty is None or found.empty is None else empty | found.empty
            unbounded = found.unbounded if unbounded is None or found.unbounded is None else unbounded | found.unbounded
        tensors = (epsilon, rho, *(t for part in ready for t in part.tensors))
        return Prepared(tensors, Certificate(None, convex, empty, unbounded))

    def unpacked(self, theta: Sequence[Tensor], prepared: Prepared) -> list[tuple[Theta, Prepared]]:
        """The inner θ and what was prepared of each node."""
        epsilon, rho, *rest = prepared.tensors
        count = len(rest) // len(SHARES)
        ready = [Prepared(tuple(rest[i * count : (i + 1) * count]), Certificate()) for i in range(len(SHARES))]
        return list(zip(self.nodes(theta, epsilon, rho), ready, strict=True))

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        parts = zip(self.states(z), self.unpacked(theta, prepared), strict=True)
        return torch.cat([self.inner.step(part, *data) for part, data in parts], dim=1)

    def states(self, z: Tensor) -> tuple[Tensor, ...]:
        """The state of each node."""
        parts: tuple[Tensor, ...] = z.split(self.inner.dimension, dim=1)
        return parts

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return self.combine(self.solutions(z, theta, prepared), LIMIT)

    def solutions(self, z: Tensor, theta: Theta, prepared: Prepared) -> list[Tensor]:
        """u(ε), u(ε/2), … as (B, n) in F's layout."""
        parts = zip(self.states(z), self.unpacked(theta, prepared), strict=True)
        found = [self.inner.primal(part, *data) for part, data in parts]
        if self.inside.names == self.layout.names:
            return found
        starts = [self.inside.start(name) for name in self.layout.names]
        pieces = list(zip(starts, map(size, self.layout.shapes), strict=True))
        return [torch.cat([u[:, a : a + n] for a, n in pieces], dim=1) for u in found]

    def combine(self, solutions: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """A weighted sum."""
        return torch.stack([w * u for w, u in zip(weights, solutions, strict=True) if w]).sum(0)

    @override
    def linearize(self, z: Tensor, theta: Theta, prepared: Prepared) -> Linearization:
        parts = zip(self.states(z), self.unpacked(theta, prepared), strict=True)
        return BlockDiagonal([self.inner.linearize(part, *data) for part, data in parts], self.inner.dimension)

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return torch.cat([self.inner.start(batch, self.base(theta))] * len(SHARES), dim=1)

    @override
    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        fix = "compile without select=: the optimal value does not depend on which solution is chosen"
        raise UnsupportedError(message("the optimal value of a program with a selection", "one without", fix))


def _curvature(p: Tensor) -> Tensor:
    """The largest diagonal entry of P (1|B, n, n) or of its diagonal (1|B, n); 1 where it vanishes."""
    diagonal = p if p.ndim == 2 else p.diagonal(dim1=1, dim2=2)
    top = diagonal.detach().abs().amax(dim=1) if diagonal.shape[1] else diagonal.new_zeros(diagonal.shape[0])
    return torch.where(top > 0, top, torch.ones_like(top))
