"""Entropic optimal transport in closed form: min ⟨q, X⟩ + ε Σ X ln X over the transport polytope, no quadratic.

X = exp(−q/ε + a1ᵀ + 1bᵀ), the potentials by Newton's method in the log domain, derivatives implicit. Accurate to the
rounding of the exponent: relative 1e-10 in float64 for |q|/ε up to some 1e5; in float32 6e-8·|q|/ε, as the sums are.
Source: Cuturi, *Sinkhorn Distances*, 2013; Brauer, Clason, Lorenz, Wirth, *A Sinkhorn–Newton method for entropic
optimal transport*, arXiv 1710.06635.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.marginals import Exponential, Fit
from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.program import Program
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.passes.merge_transport import fixed_weight
from opteq_cvx.splitting import blocks
from opteq_cvx.splitting.blocks import Block, Overlap, blocks_of
from opteq_cvx.splitting.contract import Certificate, Prepared, Splitting, Theta
from opteq_cvx.splitting.quadratic import QuadraticPart
from opteq_cvx.splitting.saddle import Proximal, Saddle

_FIT = Fit(Exponential())


@dataclass(frozen=True, slots=True)
class _Twice(Proximal):
    """g(w₁, w₂) = ε Σ w₁ ln w₁ + ι(w₂), both on a copy of x; θ as below."""

    @override
    def data(self, theta: Sequence[Tensor]) -> Sequence[Tensor]:
        return theta[2:]

    @override
    def image(self, x: Tensor, theta: Sequence[Tensor]) -> Tensor:
        return torch.cat([x, x], dim=1)

    @override
    def back(self, y: Tensor, theta: Sequence[Tensor]) -> Tensor:
        one, other = y.chunk(2, dim=1)
        return one + other


@dataclass(frozen=True, slots=True, eq=False)
class EntropicForm(Frozen, Splitting):
    """theta = (0 (1, n), q, *data of the entropy and of the polytope); the state is x."""

    layout: Layout
    smooth: QuadraticPart
    entropy: Block
    polytope: Block
    weight: float

    @property
    @override
    def dimension(self) -> int:
        return self.layout.n

    @property
    @override
    def exact(self) -> bool:
        return True

    @override
    def theta(self, env: Environment) -> Theta:
        both = (self.entropy, self.polytope)
        return (self.smooth.hessian(env), self.smooth.gradient_at_zero(env), *blocks.evaluate(both, env))

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        empty = self.polytope.empty(theta[2 + len(self.entropy.exprs) :])
        return Prepared((), Certificate(theta[0].new_ones(1), None, empty))

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return self._solution(theta).expand(z.shape[0], -1)

    @override
    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        return lambda z: self._solution(theta).expand(z.shape[0], -1)

    def _solution(self, theta: Theta) -> Tensor:
        q, rows, columns = theta[1], theta[-2], theta[-1]
        index = torch.as_tensor(self.polytope.index.reshape(-1).copy(), device=q.device)
        m, n = self.polytope.index.shape
        batch = max(t.shape[0] for t in (q, rows, columns))
        y = (-1.0 / self.weight) * q.index_select(1, index).reshape(-1, m, n)
        r, c = rows.reshape(-1, m), columns.reshape(-1, n)
        x = _FIT(y.expand(batch, m, n), r.expand(batch, m), c.expand(batch, n), y.new_ones(batch, 1, 1))
        return x.reshape(batch, m * n).index_select(1, index.argsort())

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[1].new_zeros(batch, self.dimension)

    @override
    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        part = _Twice(blocks.stacked((self.entropy, self.polytope)), 2 * self.dimension, None, graph=True)
        order = torch.as_tensor(self.polytope.index.reshape(-1).copy(), device=z.device)
        entropy = torch.as_tensor(self.entropy.index.reshape(-1).copy(), device=z.device)
        slope = self.weight * (1.0 + z.clamp(min=torch.finfo(z.dtype).tiny).log())
        rest = -(theta[1] + slope)
        w = torch.cat([z.index_select(1, entropy), z.index_select(1, order)], dim=1)
        y = torch.cat([slope.index_select(1, entropy), rest.index_select(1, order)], dim=1)
        return Saddle(part, z, w, y, z.new_ones(1))

    @override
    def nudge(self, theta: Theta, prepared: Prepared, tilt: Tensor) -> tuple[Theta, Prepared]:
        p, q, *rest = theta
        return (p, q + tilt, *rest), prepared


def entropic_form(program: Program) -> EntropicForm | None:
    """The closed form of a linear function, a transport polytope and an entropy of a fixed weight, if that is all."""
    layout = Layout.of(program)
    linear = tuple(t for t in program.terms if t.atom == "linear")
    kinds = {t.atom: t for t in program.terms if t.atom != "linear"}
    if len(program.terms) != len(linear) + 2 or set(kinds) != {"neg_entr", "transport"}:
        return None
    found = [blocks_of((kinds[name],), layout) for name in ("neg_entr", "transport")]
    weight = fixed_weight(kinds["neg_entr"])
    if weight is None or any(isinstance(f, Overlap) for f in found):
        return None
    (entropy,), (polytope,) = found  # type: ignore[misc]
    plain = all(b.scale is None and b.offset is None and b.index.size == layout.n for b in (entropy, polytope))
    return EntropicForm(layout, QuadraticPart(layout, (), linear), entropy, polytope, weight) if plain else None
