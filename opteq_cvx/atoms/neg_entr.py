"""The negative entropy, f(x) = x ln x, entry by entry: maximum entropy."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.roots import Entrywise, wright_omega
from opteq_cvx.ir.pattern import Op


@dataclass(frozen=True, slots=True)
class _Root(Entrywise):
    """x + t(1 + ln x) = v, x > 0; x = t·ω(v/t − 1 − ln t)."""

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, t = inputs
        some = torch.where(t > 0, t, 1.0)
        x = some * wright_omega(v / some - 1.0 - some.log())
        better = x - (x + some * (1.0 + x.log()) - v) * (x / (x + some))  # what the rounding of ln t did
        x = torch.where(better.isfinite() & (better > 0), better, x)
        return torch.where(t > 0, x, torch.where(v <= 0, 0.0, v))

    @override
    def partials(self, x: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        _, t = inputs
        some = x + t > 0
        rate = torch.where(some, x / torch.where(some, x + t, 1.0), 0.0)
        return rate, -(1.0 + x.clamp(min=torch.finfo(x.dtype).tiny).log()) * rate


_ROOT = _Root()


@dataclass(frozen=True, slots=True)
class NegEntr(Atom):
    """f(x) = x ln x for x ≥ 0; prox t·ω(v/t − 1 − ln t) with the Wright ω function."""

    name = "neg_entr"
    formula = "x ln x"
    cost = "O(n)"
    source = "Bauschke, Combettes 2017, example 24.39 (Lambert W)"
    traits = frozenset({Trait.SEPARABLE})
    patterns = (Op("neg_entr"),)
    spellings = (
        Spelling(text="-sum(entr(x))", draw=(0.0, 3.0)),
        Spelling(text="-sum(entr(x))", variables={"x": (2, 3)}, draw=(0.0, 3.0)),
        Spelling(text="-w @ entr(x)", parameters={"w": ((5,), {"nonneg": True})}, weight="w", draw=(0.0, 3.0)),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return torch.where(x < 0, torch.inf, torch.xlogy(x, torch.where(x < 0, 1.0, x)))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return _ROOT(v, step)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return torch.exp(y - 1.0)
