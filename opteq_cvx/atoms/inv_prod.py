"""The reciprocal of a product of powers, f(x) = Π x_i^−w_i for x > 0, along axes: inv_prod, powers of geo_mean."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import WRONG, Reducing, join, split
from opteq_cvx.atoms.contract import Data, Recognized, Spelling
from opteq_cvx.atoms.neg_geo_mean import in_row_order
from opteq_cvx.atoms.neg_log import NegLog
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.roots import Implicit, newton
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.pattern import Op, match
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class _Root(Implicit):
    """k = t·Π x_i^−w_i where x_i − k·w_i/x_i = v_i, by z = ln k: ln f falls in z with slopes between 0 and −Σ w.

    Inputs v, t, w. At t = 0 it is 0; its derivative by t is f there, and 0 where that is beyond all numbers.
    """

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, step, w = inputs
        t = torch.where(step > 0, step, 1.0)
        tiny = math.log(torch.finfo(v.dtype).tiny)
        start = (t.log() - 0.5 * torch.xlogy(w, w).sum(-1, keepdim=True)) / (1.0 + 0.5 * w.sum(-1, keepdim=True))

        def residual(z: Tensor) -> tuple[Tensor, Tensor]:
            x = NegLog().prox(v, z.exp() * w, {})
            logs = torch.xlogy(w, x.clamp(min=torch.finfo(v.dtype).tiny))
            return z - t.log() + logs.sum(-1, keepdim=True), 1.0 + _share(v, x, w)

        start = torch.maximum(start, torch.full_like(start, tiny))  # the root at v = 0
        off = residual(start)[0]  # the slope is at least 1: this far the root is at most
        z = newton(residual, start - torch.relu(off), start + torch.relu(-off), start)
        k = z.exp()
        x = NegLog().prox(v, k * w, {})
        excess = torch.where(k > 0, k / (t * _reciprocal(x, w)), 1.0) - 1.0  # what the rounding of ln k leaves
        better = k * (1.0 - excess / (1.0 + _share(v, x, w)))
        k = torch.where(excess.abs() < float(torch.finfo(k.dtype).eps ** 0.5), better, k)
        return torch.where(step > 0, k, torch.where(step == 0, 0.0, step))

    def _partials(self, k: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """∂k/∂v and ∂k/∂t."""
        v, t, w = inputs
        x = NegLog().prox(v, k * w, {})
        below = 1.0 + _share(v, x, w)
        root = 2.0 * x - v
        some = (root > 0) & (w > 0)
        by_v = torch.where(some, -k * (w / torch.where(some, root, 1.0)) / below, 0.0)
        f = _reciprocal(torch.where(w > 0, x, 1.0), w)
        at_zero = torch.where(f < float(torch.finfo(f.dtype).max ** 0.5), f, 0.0)
        by_t = torch.where(t > 0, k / torch.where(t > 0, t, 1.0), at_zero) / below
        return by_v, by_t

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        by_v, by_t = self._partials(x, inputs)
        return (by_v * tangents[0]).sum(-1, keepdim=True) + by_t * tangents[1]

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        by_v, by_t = self._partials(x, inputs)
        return by_v * grad, by_t * grad, torch.zeros_like(inputs[2])


def _share(v: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """Σ w(x − v)/(2x − v): by how much −ln f rises in ln k."""
    root = 2.0 * x - v
    some = root > 0
    part = torch.where(v > 0, (x - v) / torch.where(some, root, 1.0), 1.0 - x / torch.where(some, root, 1.0))
    return (w * torch.where(some, part, 0.0)).sum(-1, keepdim=True)


def _reciprocal(x: Tensor, w: Tensor) -> Tensor:
    """Π x^−w, +∞ where an x of positive weight is 0, along the last axis, kept."""
    return torch.where(w > 0, torch.where(w > 0, x, 1.0) ** -w, 1.0).prod(-1, keepdim=True)


_ROOT = _Root()


@dataclass(frozen=True, slots=True)
class InvProd(Reducing):
    """f(x) = Π x_i^−w_i for x > 0 (where w_i > 0); static `w` ≥ 0, not all 0, over `axes` in C order.

    The prox solves x_i − k·w_i/x_i = v_i, the prox of −k·w_i·ln x_i, with the root k = t·Π x_i^−w_i.

    Raises:
        CompileError: `w` is negative somewhere, or 0.
    """

    w: tuple[float, ...] = (1.0,)

    name = "inv_prod"
    formula = "Π x_i^−w_i"
    cost = "O(n) a step of the root"
    source = "optimality: x_i − t·w_i·Π x^−w/x_i = v_i"
    traits = frozenset()
    patterns = (Op("inv_prod"),)
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = (*WRONG, {"w": (0.0,)}, {"w": (1.5, -0.5)})
    spellings = (
        Spelling(text="inv_prod(x)", variables={"x": (3,)}, static={"w": (1.0,) * 3}, draw=(0.3, 3.0)),
        Spelling(
            text="lam * power(geo_mean(A @ x, [1, 2, 1]), -2)",
            variables={"x": (3,)},
            parameters={"A": ((3, 3), {"pos": True}), "lam": ((), {"nonneg": True})},
            arg="A @ x",
            weight="lam",
            static={"w": (0.5, 1.0, 0.5)},
            draw=(0.3, 3.0),
        ),
        Spelling(
            text="inv_pos(geo_mean(x))**1.5",
            variables={"x": (2, 2)},
            static={"axes": (-2, -1), "w": (0.375,) * 4},
            draw=(0.3, 3.0),
        ),
    )

    @override
    def __post_init__(self) -> None:
        Reducing.__post_init__(self)
        if min(self.w) < 0 or max(self.w) == 0:
            raise CompileError(message(f"inv_prod got w={self.w}", "nonnegative exponents, not all 0", "change them"))

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        found = match(cls.patterns[0], node)
        if found is None or found.bound["x"].affine is None:
            return None
        x, axes = found.bound["x"].affine, tuple(node.attrs["axes"])
        return Recognized(x, FrozenDict(axes=axes, w=in_row_order(node.attrs["p"], x.shape, axes)))

    def _exponents(self, like: Tensor) -> Tensor:
        return torch.tensor(self.w, dtype=like.dtype, device=like.device)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        flat = join(x, self.axes)
        w = self._exponents(x)
        counted = torch.where(w > 0, flat, 1.0)
        outside = (counted <= 0).any(-1, keepdim=True)
        found = torch.where(outside, torch.inf, _reciprocal(torch.where(counted <= 0, 1.0, counted), w))
        return split(found, self.axes, (1,) * x.ndim)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        flat, t = join(v, self.axes), join(step, self.axes)
        w = self._exponents(v).expand_as(flat)
        k = _ROOT(flat, t.expand((*flat.shape[:-1], 1)), w)
        x = NegLog().prox(flat, k * w, data)
        return split(torch.where(w > 0, x, flat), self.axes, v.shape)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        """−(1 + Σ w)·(Π (−y_i/w_i)^w_i)^(1/(1 + Σ w)) for y ≤ 0."""
        flat, w = join(y, self.axes), self._exponents(y)
        total = 1.0 + sum(self.w)
        size = torch.where(w > 0, torch.relu(-flat) / torch.where(w > 0, w, 1.0), 1.0)
        least = total * (size ** (w / total)).prod(-1, keepdim=True)
        wrong = torch.where(w > 0, torch.relu(flat), flat.abs()).sum(-1, keepdim=True)
        found = indicator(wrong, flat.abs().sum(-1, keepdim=True)) - least
        return split(found, self.axes, (1,) * y.ndim)
