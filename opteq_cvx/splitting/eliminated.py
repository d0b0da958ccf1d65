"""Forward–backward in the coordinates that equations leave free: see `elimination` for the formulas."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Frozen, IntArray, size
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.param import is_zero
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting import asked, blocks
from opteq_cvx.splitting.contract import Polished, Prepared, Splitting, Theta
from opteq_cvx.splitting.elimination import EQUATION, Elimination
from opteq_cvx.splitting.forward_backward import ForwardBackward
from opteq_cvx.splitting.linearization import Linearization
from opteq_cvx.splitting.quadratic import QuadraticPart
from opteq_cvx.splitting.saddle import Proximal, Saddle
from opteq_cvx.splitting.structure import Structure

HEAD, BETWEEN = 4, 3  # tensors of θ before the data of the terms in graph form, and between these and the inner θ


@dataclass(frozen=True, slots=True)
class Whole(Proximal):
    """All terms in graph form; where P is diagonal it is a bound of itself, else 0 is."""

    count: int
    diagonal_: bool

    @override
    def data(self, theta: Sequence[Tensor]) -> Sequence[Tensor]:
        return theta[HEAD : HEAD + self.count]

    @override
    def diagonal(self, theta: Sequence[Tensor]) -> Tensor | None:
        p = theta[0].diagonal(dim1=1, dim2=2)
        return p if self.diagonal_ else torch.zeros_like(p)


@dataclass(frozen=True, slots=True, eq=False)
class Eliminated(Frozen, Splitting):
    """theta = (P, q, K, b, *data of the terms, M, N, x₀, *theta of `inner`), x₀ = M b(θ); the state is u.

    `inner` is the map in u, with θ = (NᵀPN, Nᵀ(Px₀ + q), *data of its blocks); what is prepared is its own, too.
    """

    elimination: Elimination
    inner: ForwardBackward

    @staticmethod
    def of(elimination: Elimination, options: asked.ForwardBackward) -> "Eliminated":
        """The map in the free coordinates."""
        count = int(elimination.free.size)
        layout = Layout(("u",), ((count,),), (0,), count)
        parts = elimination.blocks
        smooth = QuadraticPart(layout, (), ())
        return Eliminated(
            elimination,
            ForwardBackward(Structure(layout, smooth, parts, blocks.inverse_order(parts, count)), options=options),
        )

    @property
    @override
    def dimension(self) -> int:
        return self.inner.dimension

    @property
    @override
    def descends(self) -> bool:
        return True

    @property
    @override
    def unlimited(self) -> tuple[bool, ...]:
        own = tuple(u for b in self.elimination.form.blocks for u in b.unlimited)
        return (*(False for _ in range(HEAD)), *own, *(False for _ in range(BETWEEN)), *self.inner.unlimited)

    @property
    def count(self) -> int:
        """The number of tensors of θ that are data of the terms in graph form."""
        return sum(len(b.exprs) for b in self.elimination.form.blocks)

    @override
    def theta(self, env: Environment) -> Theta:
        e, form = self.elimination, self.elimination.form
        smooth, q = form.smooth, form.smooth.gradient_at_zero(env)
        b = [env(t.arg.offset).reshape(-1, size(t.arg.shape)) for t in form.terms]
        batch, m, n = max(t.shape[0] for t in b), env(e.m), env(e.n)
        rows = torch.cat([t.expand(batch, -1) for t in b], dim=1)
        given = rows.index_select(1, _index(e.equations, rows))
        slope = given @ env(e.pulled)[0]
        if smooth.linear or not all(is_zero(t.arg.offset) for t in smooth.quadratic):
            slope = slope + q @ n[0]
        inside = (env(e.reduced), slope, *blocks.evaluate(self.inner.parts.blocks, env))
        return (env(e.p), q, env(e.k), rows, *blocks.evaluate(form.blocks, env), m, n, given @ m[0].mT, *inside)

    def _inner(self, theta: Theta) -> Theta:
        return theta[HEAD + self.count + BETWEEN :]

    def _between(self, theta: Theta) -> Theta:
        """M, N and x₀."""
        return theta[HEAD + self.count : HEAD + self.count + BETWEEN]

    @override
    def factor(self, theta: Theta) -> Theta:
        return self.inner.factor(self._inner(theta))

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        return self.inner.prepare(self._inner(theta), factors)

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return self.inner.step(z, self._inner(theta), prepared)

    @override
    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        return self.inner.runner(self._inner(theta), prepared)

    @override
    def linearize(self, z: Tensor, theta: Theta, prepared: Prepared) -> Linearization:
        return self.inner.linearize(z, self._inner(theta), prepared)

    @override
    def pullback(self, z: Tensor, theta: Theta, prepared: Prepared, w: Tensor) -> Theta | None:
        found = self.inner.pullback(z, self._inner(theta), prepared, w)
        if found is None:
            return None
        return (*(torch.zeros_like(t) for t in theta[: HEAD + self.count + BETWEEN]), *found)

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return self.inner.start(batch, self._inner(theta))

    @override
    def drift(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float) -> tuple[Tensor, Tensor]:
        return self.inner.drift(z, self._inner(theta), prepared, tolerance)

    @override
    def polish(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float, steps: int) -> Polished | None:
        return self.inner.polish(z, self._inner(theta), prepared, tolerance, steps)

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        _, n, x0 = self._between(theta)
        return z @ n[0].mT + x0

    @override
    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        """Multipliers of the equations are what makes the Lagrangian stationary in the coordinates they define."""
        form, inside = self.elimination.form, self.inner.saddle(z, self._inner(theta), prepared)
        x = self.primal(inside.x, theta, prepared)
        own = (x @ theta[0][0] + theta[1]) @ self._between(theta)[0][0]
        shares = inside.shares(self._inner(theta))
        w, y, taken = list[Tensor](), list[Tensor](), 0
        for term in form.terms:
            count = size(term.arg.shape)
            if term.atom == EQUATION:
                y.append(own[:, taken : taken + count])
                w.append(torch.zeros_like(y[-1]))
                taken += count
            else:
                point, multiplier = shares[id(term)]
                w.append(point.reshape(-1, count).expand(x.shape[0], -1))
                y.append(multiplier.reshape(-1, count).expand(x.shape[0], -1))
        part = Whole(form.blocks, form.m, None, True, self.count, form.smooth.diagonal)
        return Saddle(part, x, torch.cat(w, dim=1), torch.cat(y, dim=1), x.new_ones(1, form.m))

    @override
    def nudge(self, theta: Theta, prepared: Prepared, tilt: Tensor) -> tuple[Theta, Prepared]:
        inside, ready = self.inner.nudge(self._inner(theta), prepared, tilt)
        p, q, *rest = theta[: HEAD + self.count + BETWEEN]
        q = q.expand(tilt.shape[0], -1).index_add(1, _index(self.elimination.free, q), tilt)
        return (p, q, *rest, *inside), ready


def _index(index: IntArray, like: Tensor) -> Tensor:
    return torch.as_tensor(index.copy(), device=like.device)
