"""Ties that are no affine tilts, without a certificate: a tied parameter in a constraint, a weight or a nonlinear term.

u⁺ = prox_{γf(·; z)}(u − γ(Pu + q(z))) with z the value that the ties give u: a fixed point solves every program at the
tied values. Whether it exists, is unique or is reached is not known; only the residual says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.ir.program import Affine
from opteq_cvx.maps.affine import affine
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting import blocks
from opteq_cvx.splitting.contract import Prepared, Splitting, Theta
from opteq_cvx.splitting.flat import split
from opteq_cvx.splitting.inclusion import times
from opteq_cvx.splitting.quadratic import spectrum
from opteq_cvx.splitting.structure import Structure


@dataclass(frozen=True, slots=True, eq=False)
class Untilted(Frozen, Splitting):
    """theta = (P, *parameter values in the order of `names`), P (1|B, n, n); prepared = (γ,); the state is u.

    `parts` still hold the tied parameters; `ties` are their values as functions of the variables.
    """

    parts: Structure
    names: tuple[str, ...]
    ties: Mapping[str, Affine]

    @property
    @override
    def dimension(self) -> int:
        return self.parts.layout.n

    @override
    def theta(self, env: Environment) -> Theta:
        p = self.parts.smooth.hessian(env)
        p = torch.diag_embed(p) if p.ndim == 2 else p
        return (p, *(env.values[name].to(env.dtype) for name in self.names))

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        _, upper = spectrum(theta[0])
        gamma = torch.where(upper > 0, 1.0 / upper, torch.ones_like(upper))
        first = self._environment(theta[0].new_zeros(1, self.dimension), theta)
        data = blocks.evaluate(self.parts.blocks, first)
        return Prepared((gamma,), self.parts.certificate(data, None, None))

    def _environment(self, z: Tensor, theta: Theta) -> Environment:
        """The parameters' values with those of the tied ones at the state z."""
        values = dict(zip(self.names, theta[1:], strict=True))
        env = Environment(values, z.dtype, z.device)
        variables = split(z, self.parts.layout)
        tied = {name: affine(tie, variables, env) for name, tie in self.ties.items()}
        return Environment({**values, **tied}, z.dtype, z.device)

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        (gamma,) = prepared.tensors
        env, parts = self._environment(z, theta), self.parts
        q, data = parts.smooth.gradient_at_zero(env), blocks.evaluate(parts.blocks, env)
        prox = blocks.bind(parts.blocks, parts.layout.n, gamma, data, parts.order)
        return prox(z - gamma[:, None] * (times(theta[0], z) + q))

    @override
    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        return lambda z: self.step(z, theta, prepared)

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[0].new_zeros(batch, self.dimension)
