"""f(x) = x·eˣ on x ≥ 0, entry by entry."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.exp import bounded_exp
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.roots import Entrywise, exp_root, newton, wright_omega
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.pattern import Op, match
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class _Root(Entrywise):
    """x + t(1 + x)eˣ = v where v > t, else 0; the root is bracketed by eˣ ≤ (1 + x)eˣ ≤ e²ˣ."""

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        point, t = inputs
        v = torch.where(point <= t, t, point)
        low, high = 0.5 * exp_root(2.0 * v, 2.0 * t), exp_root(v, t)
        low, high = torch.where(low <= 0, 0.0, low), torch.where(high <= 0, 0.0, high)

        def residual(x: Tensor) -> tuple[Tensor, Tensor]:
            power = t * bounded_exp(x)
            return x + (1.0 + x) * power - v, 1.0 + (2.0 + x) * power

        return torch.where(point <= t, 0.0, newton(residual, low, high))

    @override
    def partials(self, x: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        v, t = inputs
        slope = bounded_exp(x + torch.log1p(x))
        rate = torch.where(v > t, 1.0 / (1.0 + t * bounded_exp(x + torch.log(2.0 + x))), 0.0)
        return rate, -slope * rate


_ROOT = _Root()


@dataclass(frozen=True, slots=True)
class Xexp(Atom):
    """f(x) = x·eˣ for x ≥ 0, where CVXPY has it convex; prox 0 for v ≤ t, with derivative 0 at t.

    Static `positive`: that of max(x, 0), for all x; the prox leaves v ≤ 0 alone, with derivative 0 at 0.
    """

    positive: bool = False

    name = "xexp"
    formula = "x·eˣ, x ≥ 0"
    cost = "O(n)"
    source = "optimality: x + t(1 + x)eˣ = v"
    traits = frozenset({Trait.SEPARABLE})
    patterns = (Op("xexp"), Op("xexp", (Op("pos"),)))
    spellings = (
        Spelling(text="sum(xexp(x))", attributes={"x": {"nonneg": True}}, draw=(0.0, 2.0)),
        Spelling(
            text="w @ xexp(x)",
            attributes={"x": {"nonneg": True}},
            parameters={"w": ((5,), {"nonneg": True})},
            weight="w",
            draw=(0.0, 2.0),
        ),
        Spelling(text="sum(xexp(pos(x)))", static={"positive": True}),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        for pattern, positive in zip(cls.patterns, (False, True), strict=True):
            found = match(pattern, node)
            if found is not None and found.bound["x"].affine is not None:
                return Recognized(found.bound["x"].affine, FrozenDict({"positive": True} if positive else {}))
        return None

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        outside = 0.0 if self.positive else torch.inf
        return torch.where(x < 0, outside, x * torch.exp(x))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        x = _ROOT(v, step)
        return torch.where(v < 0, v, x) if self.positive else x

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        """x²·eˣ at (1 + x)eˣ = y, that is 1 + x = W(e·y) = ω(1 + ln y); 0 for y ≤ 1."""
        x = wright_omega(1.0 + torch.where(y <= 1.0, 1.0, y).log()) - 1.0
        found = x * x * torch.exp(x)
        return found + indicator(torch.relu(-y), y.abs()) if self.positive else found

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return (step.expand_as(v), torch.zeros_like(v)) if self.positive else (step.expand_as(v),)
