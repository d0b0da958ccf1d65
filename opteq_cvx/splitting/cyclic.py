"""Tied units one after the other, Gauss–Seidel: u_k ← prox_{f_k/p_k}((Σ_j C_kj u_j − q_k)/p_k) with the newest u_j.

For programs with ½p_k‖u_k‖² as quadratic: every step solves one program in closed form at the tied values. With B the
matrix of L_k‖C_kj‖/p_k, L_k the Lipschitz constant of the prox, a sweep contracts where the spectral radius of B is
below 1; for a cycle of layers by ∏ L_k‖W_kW_{k−1}ᵀ‖. Source: Stein and Rosenberg 1948 (nonnegative matrices).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Frozen, IntArray, freeze_index
from opteq_cvx.ir.param import ParamExpr
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting import blocks
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.contract import Prepared, Splitting, Theta
from opteq_cvx.splitting.inclusion import times
from opteq_cvx.splitting.saddle import Proximal, Saddle
from opteq_cvx.splitting.structure import Structure


@dataclass(frozen=True, slots=True, eq=False)
class Unit(Frozen):
    """One variable: its coordinates start:stop, p, the sources of its coupling, its proxes on local coordinates.

    `places` are the positions of its blocks among those of the whole program.
    """

    start: int
    stop: int
    curvature: float
    sources: tuple[tuple[int, ParamExpr], ...]
    blocks: tuple[Block, ...]
    places: tuple[int, ...]
    order: IntArray | None


@dataclass(frozen=True, slots=True, eq=False)
class Cyclic(Frozen, Splitting):
    """theta = (C₁, q, *block data, C₂, …), the couplings unit by unit; the state is u.

    `modulus` is certified by construction. The first coupling stands where other splittings have P.
    """

    parts: Structure
    units: tuple[Unit, ...]
    modulus: float

    @property
    @override
    def dimension(self) -> int:
        return self.parts.layout.n

    @override
    def theta(self, env: Environment) -> Theta:
        first, *rest = (env(c) for unit in self.units for _, c in unit.sources)
        data = blocks.evaluate(self.parts.blocks, env)
        return (first, self.parts.smooth.gradient_at_zero(env), *data, *rest)

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        modulus = theta[1].new_full((1,), self.modulus)
        return Prepared((), self.parts.certificate(theta[2:], modulus, None))

    def _shares(self, theta: Theta) -> list[tuple[Sequence[Tensor], Sequence[Tensor]]]:
        """(couplings, block data) of each unit."""
        data = list(theta[2:])
        own: list[Sequence[Tensor]] = []
        for block in self.parts.blocks:
            own.append(data[: len(block.exprs)])
            data = data[len(block.exprs) :]
        couplings = [theta[0], *data]
        out: list[tuple[Sequence[Tensor], Sequence[Tensor]]] = []
        for unit in self.units:
            out.append((couplings[: len(unit.sources)], [t for i in unit.places for t in own[i]]))
            couplings = couplings[len(unit.sources) :]
        return out

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return self._sweep(theta)(z)

    @override
    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        return self._sweep(theta)

    def _sweep(self, theta: Theta) -> Callable[[Tensor], Tensor]:
        q = theta[1]
        ready = []
        for unit, (couplings, data) in zip(self.units, self._shares(theta), strict=True):
            step = q.new_full((1,), 1.0 / unit.curvature)
            prox = blocks.bind(unit.blocks, unit.stop - unit.start, step, data, unit.order)
            ready.append((unit, -q[:, unit.start : unit.stop], couplings, prox))

        def sweep(z: Tensor) -> Tensor:
            now = [z[:, unit.start : unit.stop] for unit in self.units]
            for k, (unit, c, couplings, prox) in enumerate(ready):
                v = c.expand(z.shape[0], -1)
                for (source, _), matrix in zip(unit.sources, couplings, strict=True):
                    v = v + times(matrix, now[source])
                now[k] = prox(v if unit.curvature == 1.0 else v / unit.curvature)
            return torch.cat(now, dim=1)

        return sweep

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z

    @override
    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        pulls = []
        for unit, (couplings, _) in zip(self.units, self._shares(theta), strict=True):
            v = -theta[1][:, unit.start : unit.stop] - unit.curvature * z[:, unit.start : unit.stop]
            for (source, _), matrix in zip(unit.sources, couplings, strict=True):
                v = v + times(matrix, z[:, self.units[source].start : self.units[source].stop])
            pulls.append(v)
        steps = [z.new_full((1, u.stop - u.start), 1.0 / u.curvature) for u in self.units]
        part = Proximal(self.parts.blocks, self.dimension, self.parts.order, False)
        return Saddle(part, z, z, torch.cat(pulls, dim=1), torch.cat(steps, dim=1))

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[1].new_zeros(batch, self.dimension)


def local(found: Sequence[Block], start: int, stop: int) -> tuple[tuple[int, Block], ...] | None:
    """The blocks on the coordinates start:stop, counted from start, by place; None where one reaches beyond them."""
    own = []
    for place, block in enumerate(found):
        low, high = int(block.index.min(initial=stop)), int(block.index.max(initial=-1))
        if high < start or low >= stop:
            continue
        if low < start or high >= stop:
            return None
        inner = block.interval
        if inner is not None:
            inner = replace(inner, index=freeze_index(inner.index - start))
        own.append((place, replace(block, index=freeze_index(block.index - start), interval=inner)))
    return tuple(own)
