"""The Kullback-Leibler divergence f(x, y) = x ln(x/y) − x + y; the last axis holds the pair."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.arguments import stacked
from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.roots import Implicit, exp_root, newton
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class _Root(Implicit):
    """x + t·s = a, y + t(1 − eˢ) = b with s = ln(x/y); (0, 0) where that has no y > 0.

    The Hessian is qqᵀ/x, q = (1, −x/y), so the
    derivative is I − t qqᵀ/(x + t‖q‖²), written without a difference.
    """

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, step = inputs
        t = torch.where(step > 0, step, 1.0)
        a, b = v[..., :1], v[..., 1:]
        least = torch.where(b < t, torch.log1p(-torch.where(b < t, b, 0.0) / t), -torch.inf)  # y = 0
        origin = (b < t) & (t * torch.where(b < t, least, 0.0) >= a)
        low = torch.maximum(least, torch.clamp((a - b) / t, max=0.0))
        root = torch.hypot(b - t, 2.0 * (t * torch.relu(a)).sqrt())  # of t·w² + (b − t)w = a, an upper bound of eˢ
        most = torch.where(b > t, 2.0 * torch.relu(a) / (b - t + root), 0.5 * (t - b + root) / t)
        high = torch.where(a > 0, most.clamp(min=1.0).log(), a / t)
        high = torch.where(b > t, torch.minimum(high, exp_root(a / t, torch.relu(b / t - 1.0))), high)  # without t·w²
        high = torch.where(origin, low, torch.maximum(high, low))  # no steps where there is no root

        def residual(s: Tensor) -> tuple[Tensor, Tensor]:
            w = s.exp()
            y = b + t * torch.expm1(s)
            return t * s - a + w * y, t + w * (y + t * w)

        s = newton(residual, low, high, high)  # convex: the steps fall to the root
        y = torch.relu(b + t * torch.expm1(s))
        x = torch.where(s > 0, torch.relu(a - t * s), s.exp() * y)
        y = torch.where(s > 0, x * (-s).exp(), y)
        positive = torch.where(v <= 0, 0.0, v)
        x_y = torch.where(origin, v - v, torch.cat([x, y], dim=-1))
        return torch.where(step > 0, x_y, positive)

    def _apply(self, x_y: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """The derivative by v, symmetric, times h."""
        x, y = x_y[..., :1], x_y[..., 1:]
        p, q = h[..., :1], h[..., 1:]
        total = x * y * y + t * (x * x + y * y)
        some = total > 0
        total = torch.where(some, total, 1.0)
        mixed = t * x * y
        out = torch.cat([(x * y * y + t * x * x) * p + mixed * q, mixed * p + (x * y * y + t * y * y) * q], dim=-1)
        return torch.where(some, out / total, 0.0)

    def _gradient(self, x_y: Tensor) -> Tensor:
        tiny = torch.finfo(x_y.dtype).tiny
        x, y = x_y[..., :1].clamp(min=tiny), x_y[..., 1:].clamp(min=tiny)
        return torch.cat([x.log() - y.log(), 1.0 - x / y], dim=-1)

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        _, t = inputs
        dv, dt = tangents
        return self._apply(x, t, dv - self._gradient(x) * dt)

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        _, t = inputs
        back = self._apply(x, t, grad)
        return back, -(self._gradient(x) * back).sum(-1, keepdim=True)


_ROOT = _Root()


def kl_prox(v: Tensor, step: Tensor) -> Tensor:
    """The prox of step · f at v, both parts along the last axis."""
    return _ROOT(v, step.expand((*v.shape[:-1], 1)))


@dataclass(frozen=True, slots=True)
class KlDiv(Atom):
    """f(x, y) = x ln(x/y) − x + y for x ≥ 0, y > 0, and 0 at the origin; prox by one root in ln(x/y)."""

    name = "kl_div"
    formula = "x ln(x/y) − x + y of [x, y]"
    cost = "O(n)"
    source = "Combettes, Müller, *Perspective functions: proximal calculus*, 2018"
    traits = frozenset({Trait.HOMOGENEOUS})
    spellings = (
        Spelling(
            text="sum(kl_div(x, y))",
            variables={"x": (5,), "y": (5,)},
            arg="stack([x, y], axis=-1)",
            draw=(0.1, 3.0),
        ),
        Spelling(
            text="w @ kl_div(x, 1 + y)",
            variables={"x": (4,), "y": (4,)},
            parameters={"w": ((4,), {"nonneg": True})},
            arg="stack([x, 1 + y], axis=-1)",
            weight="reshape(w, (4, 1), order='C')",
            draw=(0.1, 3.0),
        ),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        arg = stacked(node, "kl_div")
        return None if arg is None else Recognized(arg)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        x, y = x[..., :1], x[..., 1:]
        inside = (x >= 0) & (y > 0) | (x == 0) & (y == 0)
        p, q = torch.where(inside, x, 1.0), torch.where(inside & (y > 0), y, 1.0)
        return torch.where(inside, torch.xlogy(p, p / q) - p + torch.where(inside, y, 1.0), torch.inf)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return kl_prox(v, step)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        p, q = y[..., :1], y[..., 1:]
        return indicator(torch.relu(p.exp() + q - 1.0), p.exp() + q.abs())
