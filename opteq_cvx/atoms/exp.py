"""The exponential, f(x) = eˣ, entry by entry: Poisson and exponential losses."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.roots import Entrywise, exp_root
from opteq_cvx.ir.pattern import Op


def bounded_exp(x: Tensor) -> Tensor:
    """eˣ, the largest number at most, so that a product with a step of 0 is 0."""
    return torch.exp(x.clamp(max=math.log(torch.finfo(x.dtype).max) - 1.0))


@dataclass(frozen=True, slots=True)
class _Root(Entrywise):
    """x + t·eˣ = v."""

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, t = inputs
        return exp_root(v, t)

    @override
    def partials(self, x: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        _, t = inputs
        slope = bounded_exp(x)
        rate = 1.0 / (1.0 + t * slope)
        return rate, -slope * rate


_ROOT = _Root()


@dataclass(frozen=True, slots=True)
class Exp(Atom):
    """f(x) = eˣ; prox v − W(t·eᵛ) with Lambert's W, by the Wright ω function, which does not overflow."""

    name = "exp"
    formula = "eˣ"
    cost = "O(n)"
    source = "Bauschke, Combettes 2017, example 24.38 (Lambert W)"
    traits = frozenset({Trait.SEPARABLE})
    patterns = (Op("exp"),)
    spellings = (
        Spelling(text="sum(exp(x))"),
        Spelling(text="sum(exp(x))", variables={"x": (2, 3)}),
        Spelling(text="w @ exp(-x)", parameters={"w": ((5,), {"nonneg": True})}, weight="w", arg="-x"),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return torch.exp(x)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return _ROOT(v, step)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return torch.xlogy(torch.relu(y), torch.relu(y)) - y + indicator(torch.relu(-y), y.abs())
