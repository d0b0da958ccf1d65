"""Closed form: a diagonal quadratic plus uniformly weighted proxes: u* = prox_{f/p}(−q/p), no iteration."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.ir.param import Stage
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting import blocks
from opteq_cvx.splitting.contract import Prepared, Splitting, Theta
from opteq_cvx.splitting.graph_form import coupled
from opteq_cvx.splitting.saddle import Proximal, Saddle
from opteq_cvx.splitting.structure import Structure


@dataclass(frozen=True, slots=True, eq=False)
class ClosedForm(Frozen, Splitting):
    """theta = (p, q, *block data) with p (1|B, n) > 0 the diagonal; the state is u; T(z) does not depend on z.

    `uniform` says that p is one number; else it is one for the coordinates of each group that a prox couples, so that
    all functions have a prox in this metric.
    """

    parts: Structure
    uniform: bool

    @property
    @override
    def dimension(self) -> int:
        return self.parts.layout.n

    @property
    @override
    def exact(self) -> bool:
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
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        p = theta[0]
        return Prepared((), self.parts.certificate(theta[2:], p.new_ones(1), None))

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return self._solve(theta)(z)

    @override
    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        return self._solve(theta)

    def _solve(self, theta: Theta) -> Callable[[Tensor], Tensor]:
        p, q, *rest = theta
        parts = self.parts
        step = (1.0 / p)[:, 0] if self.uniform else 1.0 / p
        prox = blocks.bind(parts.blocks, parts.layout.n, step, rest, parts.order)
        point = -q / p
        return lambda z: prox(point.expand(z.shape[0], -1))

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[1].new_zeros(batch, self.dimension)

    @override
    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        p, q, parts = theta[0], theta[1], self.parts
        part = Proximal(parts.blocks, parts.layout.n, parts.order, False)
        step = (1.0 / p)[:, 0] if self.uniform else 1.0 / p
        return Saddle(part, z, z, -(p * z + q), step)

    @override
    def nudge(self, theta: Theta, prepared: Prepared, tilt: Tensor) -> tuple[Theta, Prepared]:
        p, q, *rest = theta
        return (p, q + tilt, *rest), prepared


def closed_form(parts: Structure) -> ClosedForm | str:
    """The closed form of a structure, or why there is none."""
    smooth = parts.smooth
    if not smooth.quadratic:
        return "the objective has no quadratic part"
    if not smooth.diagonal:
        return "the quadratic couples coordinates"
    if smooth.stage is not Stage.CONSTANT:
        return "the quadratic's diagonal is not a compile-time constant"
    p = smooth.hessian(Environment({}, torch.float64, torch.device("cpu")))
    if not bool((p > 0).all()):
        return "some coordinate has no curvature"
    uniform = bool(p.max() == p.min())
    for rows in () if uniform else coupled(parts.blocks):
        group = rows.grouped(p[0, torch.as_tensor(rows.index.copy())])
        if bool((group.amax(1) > group.amin(1)).any()):
            return "curvature differs between coordinates that a term couples"
    return ClosedForm(parts, uniform)
