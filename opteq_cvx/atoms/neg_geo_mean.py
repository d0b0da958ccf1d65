"""The negative of a weighted geometric mean, f(x) = −Π x_i^w_i, along axes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import WRONG, Reducing, join, split
from opteq_cvx.atoms.contract import Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.neg_log import NegLog
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.roots import Implicit, newton
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.frozen import FrozenDict, Shape
from opteq_cvx.ir.pattern import Op, match
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class _Root(Implicit):
    """k = t·Π x_i^w_i where x_i − k·w_i/x_i = v_i; 0 where only x = max(v, 0) is left. Inputs v, t, w."""

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, step, w = inputs
        t = torch.where(step > 0, step, 1.0)
        top = torch.relu(torch.where(w > 0, v, 0.0).amax(-1, keepdim=True))
        high = 2.0 * (0.5 * (t + torch.sqrt(t * t + 4.0 * t * top))).log()
        low = high + 0.5 * math.log(torch.finfo(v.dtype).tiny)

        def residual(s: Tensor) -> tuple[Tensor, Tensor]:
            x = NegLog().prox(v, s.exp() * w, {})
            f = s - t.log() - torch.xlogy(w, x).sum(-1, keepdim=True)
            return f, _share(v, x, w)

        lost = (step <= 0) | (residual(low)[0] >= 0)
        low = torch.where(lost, high, low)  # no steps where there is no root
        s = newton(residual, low, high, high, 1.0 + t.log().abs())
        k = _polished(s.exp(), v, t, w)
        return torch.where(lost, torch.where(v.isnan().any(-1, keepdim=True), torch.nan, 0.0), k)

    def _partials(self, k: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """∂k/∂v and ∂k/∂t."""
        v, t, w = inputs
        x = NegLog().prox(v, k * w, {})
        share = _share(v, x, w)
        some = share > 0
        share = torch.where(some, share, 1.0)
        root = 2.0 * x - v
        by_v = torch.where(root > 0, w / torch.where(root > 0, root, 1.0), 0.0)
        positive = torch.where(w > 0, x, 1.0).clamp(min=torch.finfo(x.dtype).tiny)
        mean = torch.exp((w * positive.log()).sum(-1, keepdim=True))
        return torch.where(some, k * by_v / share, 0.0), torch.where(some & ((k > 0) | (t == 0)), mean / share, 0.0)

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        by_v, by_t = self._partials(x, inputs)
        return (by_v * tangents[0]).sum(-1, keepdim=True) + by_t * tangents[1]

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        by_v, by_t = self._partials(x, inputs)
        return by_v * grad, by_t * grad, torch.zeros_like(inputs[2])


def _polished(k: Tensor, v: Tensor, t: Tensor, w: Tensor) -> Tensor:
    """k after a step on k/(t·Π x^w) = 1, which the rounding of ln k leaves; x by its largest entry, as Σ w = 1."""
    x = NegLog().prox(v, k * w, {})
    top = torch.where(w > 0, x, 0.0).amax(-1, keepdim=True)
    excess = k / t / top / torch.where(w > 0, x / top, 1.0).pow(w).prod(-1, keepdim=True) - 1.0
    better = k * (1.0 - excess / _share(v, x, w))
    return torch.where(excess.abs() < float(torch.finfo(k.dtype).eps ** 0.5), better, k)


def _share(v: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """Σ w·x/(2x − v): the slope of ln k − Σ w ln x by ln k."""
    root = 2.0 * x - v
    return torch.where(root > 0, w * x / torch.where(root > 0, root, 1.0), 0.0).sum(-1, keepdim=True)


def in_row_order(p: Sequence[float], shape: Shape, axes: tuple[int, ...]) -> tuple[float, ...]:
    """A node's weights of the entries along `axes`, which stand in Fortran order, in C order."""
    w = np.asarray(p, dtype=np.float64).reshape(tuple(shape[a] for a in axes), order="F")
    return tuple(w.reshape(-1).tolist())


_ROOT = _Root()


@dataclass(frozen=True, slots=True)
class NegGeoMean(Reducing):
    """f(x) = −Π x_i^w_i for x ≥ 0 (where w_i > 0); static `w`, nonnegative, summing to 1, over `axes` in C order.

    The prox solves x_i − k·w_i/x_i = v_i with the root k = t·Π x_i^w_i.

    Raises:
        CompileError: `w` is negative somewhere or does not sum to 1.
    """

    w: tuple[float, ...] = (1.0,)

    name = "neg_geo_mean"
    formula = "−Π x_i^w_i"
    cost = "O(n) a step of the root"
    source = "optimality: x_i − t·w_i·Π x^w/x_i = v_i"
    traits = frozenset({Trait.HOMOGENEOUS})
    patterns = (Op("neg_geo_mean"),)
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = (*WRONG, {"w": (0.5,)}, {"w": (1.5, -0.5)})
    spellings = (
        Spelling(text="-geo_mean(x)", variables={"x": (4,)}, static={"w": (0.25,) * 4}, draw=(0.1, 3.0)),
        Spelling(
            text="-geo_mean(x, [1, 2, 1])",
            variables={"x": (3,)},
            static={"w": (0.25, 0.5, 0.25)},
            draw=(0.1, 3.0),
        ),
        Spelling(
            text="-sum(geo_mean(x, axis=0))",
            variables={"x": (2, 3)},
            static={"axes": (-2,), "w": (0.5, 0.5)},
            draw=(0.1, 3.0),
            argmin=False,  # CVXPY 1.9.3 transposes the entries here: tests/atoms/test_neg_geo_mean.py
        ),
    )

    @override
    def __post_init__(self) -> None:
        Reducing.__post_init__(self)
        if min(self.w) < 0 or abs(sum(self.w) - 1.0) > 1e-9:
            found = f"neg_geo_mean got w={self.w}"
            raise CompileError(message(found, "nonnegative weights that sum to 1", "divide them by their sum"))

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        found = match(cls.patterns[0], node)
        if found is None or found.bound["x"].affine is None:
            return None
        x, axes = found.bound["x"].affine, tuple(node.attrs["axes"])
        return Recognized(x, FrozenDict(axes=axes, w=in_row_order(node.attrs["p"], x.shape, axes)))

    def _weights(self, like: Tensor) -> Tensor:
        return torch.tensor(self.w, dtype=like.dtype, device=like.device)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        flat = join(x, self.axes)
        w = self._weights(x)
        counted = torch.where(w > 0, flat, 1.0)
        mean = torch.prod(torch.relu(counted) ** w, dim=-1, keepdim=True)
        outside = (counted < 0).any(-1, keepdim=True)
        return split(torch.where(outside, torch.inf, -mean), self.axes, (1,) * x.ndim)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        flat, t = join(v, self.axes), join(step, self.axes)
        w = self._weights(v).expand_as(flat)
        k = _ROOT(flat, t.expand((*flat.shape[:-1], 1)), w)
        x = NegLog().prox(flat, k * w, data)
        return split(torch.where(w > 0, x, flat), self.axes, v.shape)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        flat, w = join(y, self.axes), self._weights(y)
        size = torch.where((w > 0) & (flat < 0), -flat, 1.0)
        short = -torch.xlogy(w, size / torch.where(w > 0, w, 1.0)).sum(-1, keepdim=True)
        wrong = torch.where(w > 0, torch.relu(flat), flat.abs()).sum(-1, keepdim=True)
        total = indicator(torch.relu(short) + wrong, flat.abs().sum(-1, keepdim=True))
        return split(total, self.axes, (1,) * y.ndim)
