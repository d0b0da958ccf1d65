"""f(x) = x·eˣ on x ≥ 0, entry by entry."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.exp import bounded_exp
from opteq_cvx.atoms.roots import Entrywise, exp_root, newton, wright_omega
from opteq_cvx.ir.pattern import Op


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
    """f(x) = x·eˣ for x ≥ 0, where CVXPY has it convex; prox 0 for v ≤ t, with derivative 0 at t."""

    name = "xexp"
    formula = "x·eˣ, x ≥ 0"
    cost = "O(n)"
    source = "optimality: x + t(1 + x)eˣ = v"
    traits = frozenset({Trait.SEPARABLE})
    patterns = (Op("xexp"),)
    spellings = (
        Spelling(text="sum(xexp(x))", attributes={"x": {"nonneg": True}}, draw=(0.0, 2.0)),
        Spelling(
            text="w @ xexp(x)",
            attributes={"x": {"nonneg": True}},
            parameters={"w": ((5,), {"nonneg": True})},
            weight="w",
            draw=(0.0, 2.0),
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return torch.where(x < 0, torch.inf, x * torch.exp(x))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return _ROOT(v, step)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        """x²·eˣ at (1 + x)eˣ = y, that is 1 + x = W(e·y) = ω(1 + ln y); 0 for y ≤ 1."""
        x = wright_omega(1.0 + torch.where(y <= 1.0, 1.0, y).log()) - 1.0
        return x * x * torch.exp(x)

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return (step.expand_as(v),)
