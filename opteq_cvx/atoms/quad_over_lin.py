"""The square over a variable, f(x, y) = ‖x‖²/y; the last entry of the last axis is y."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.arguments import affine_of
from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.roots import Entrywise, newton
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.frozen import size
from opteq_cvx.ir.linmap import Reshape
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class _Height(Entrywise):
    """y ≥ 0 with y − ts/(y + 2t)² = b, 0 where there is none: y itself, which y + 2t would lose for large t."""

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        b, t, s = inputs
        low = torch.relu(b)
        some = torch.where(t > 0, t, 1.0)
        least = torch.minimum(s / (4.0 * some), some ** (1.0 / 3.0) * s ** (1.0 / 3.0))
        high = low + torch.where(t > 0, least, 0.0)
        gap = torch.where(high > b, high - b, 1.0)
        start = torch.minimum(torch.maximum(low, some.sqrt() * (s / gap).sqrt() - 2.0 * some), high)  # below the root

        def residual(y: Tensor) -> tuple[Tensor, Tensor]:
            w = y + 2.0 * some
            bent = (some / w) * (s / w)
            return y - bent - b, 1.0 + 2.0 * bent / w

        y = newton(residual, low, high, start)
        return torch.where(t > 0, y, low)

    @override
    def partials(self, x: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        b, t, s = inputs
        w = x + 2.0 * t
        inside = (w > 0) & ((x > 0) | (4.0 * t * b + s > 0))
        w = torch.where(w > 0, w, 1.0)
        rate = torch.where(inside, 1.0 / (1.0 + 2.0 * (t / w) * (s / w) / w), 0.0)
        return rate, rate * (s / w) * (1.0 - 4.0 * t / w) / w, rate * (t / w) / w


HEIGHT = _Height()


@dataclass(frozen=True, slots=True)
class QuadOverLin(Atom):
    """f(x, y) = ‖x‖²/y for y > 0, and 0 at the origin.

    The prox at (a, b) is x = a·y/(y + 2t) with the root y of y − t‖a‖²/(y + 2t)² = b, and 0 where 4tb + ‖a‖² ≤ 0.
    """

    name = "quad_over_lin"
    formula = "‖x‖²/y of [x, y]"
    cost = "O(n)"
    source = "Combettes, Müller, *Perspective functions: proximal calculus*, 2018"
    traits = frozenset({Trait.HOMOGENEOUS})
    spellings = (
        Spelling(
            text="quad_over_lin(x, y)",
            variables={"x": (4,), "y": ()},
            arg="hstack([x, y])",
            draw=(0.1, 3.0),
        ),
        Spelling(
            text="lam * quad_over_lin(A @ x, 1 + y)",
            variables={"x": (4,), "y": ()},
            parameters={"A": ((3, 4), {}), "lam": ((), {"nonneg": True})},
            arg="hstack([A @ x, 1 + y])",
            weight="lam",
            draw=(0.1, 3.0),
        ),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        if node.op != "quad_over_lin":
            return None
        x, y = (affine_of(arg) for arg in node.args)
        if x is None or y is None or len(node.attrs["axes"]) < len(x.shape) or y.shape != ():
            return None
        flat = aff.image(Reshape(x.shape, (size(x.shape),), "C"), x) if len(x.shape) > 1 else x
        return Recognized(aff.join([flat, aff.image(Reshape((), (1,), "C"), y)]))

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        x, y = x[..., :-1], x[..., -1:]
        square = (x * x).sum(-1, keepdim=True)
        some = y > 0
        return torch.where(
            some, square / torch.where(some, y, 1.0), torch.where((y == 0) & (square == 0), 0.0, torch.inf)
        )

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        a, b = v[..., :-1], v[..., -1:]
        square = (a * a).sum(-1, keepdim=True)
        y = HEIGHT(b, step, square)
        w = y + 2.0 * step
        some = w > 0
        x = a * (y / torch.where(some, w, 1.0))
        origin = (4.0 * step * b + square <= 0) & (b <= 0)
        x_y = torch.cat([torch.where(some, x, a), y], dim=-1)
        return torch.where(origin, v - v, x_y)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        p, q = y[..., :-1], y[..., -1:]
        square = (p * p).sum(-1, keepdim=True) / 4.0
        return indicator(torch.relu(q + square), q.abs() + square)
