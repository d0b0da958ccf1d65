"""The absolute value, f(x) = |x|, entry by entry: the l1 norm, weighted or not."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator, soft_threshold
from opteq_cvx.ir.pattern import Op


@dataclass(frozen=True, slots=True)
class Abs(Atom):
    """f(x) = |x|; prox sign(v) max(|v| − t, 0), with derivative 0 at |v| = t."""

    name = "abs"
    formula = "|x|"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.5.2"
    traits = frozenset({Trait.SEPARABLE, Trait.HOMOGENEOUS, Trait.EVEN})
    patterns = (Op("abs"),)
    spellings = (
        Spelling(text="norm1(x)"),
        Spelling(text="sum(abs(x))", variables={"x": (2, 3)}),
        Spelling(text="norm(x, 1)"),
        Spelling(text="sum(multiply(w, abs(x)))", parameters={"w": ((5,), {"nonneg": True})}, weight="w"),
        Spelling(text="lam * norm1(x)", parameters={"lam": ((), {"nonneg": True})}, weight="lam"),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return x.abs()

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return soft_threshold(v, step)

    @override
    def prox_inplace(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v.sub_(torch.clamp(v, -step, step))

    @override
    def slope(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return torch.gt(v.abs(), step).to(v.dtype)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return indicator(y.abs() - 1.0, y.abs())

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return step.expand_as(v), -step.expand_as(v)
