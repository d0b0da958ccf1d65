"""The logistic function, f(x) = ln(1 + eˣ), entry by entry: logistic regression."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.roots import ProxByRoot
from opteq_cvx.ir.pattern import Op


def _curvature(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * torch.sigmoid(-x)


_ROOT = ProxByRoot(torch.sigmoid, _curvature, lambda v, t: (v - t, v))


@dataclass(frozen=True, slots=True)
class Logistic(Atom):
    """f(x) = ln(1 + eˣ); prox the root of x + t/(1 + e⁻ˣ) = v, in [v − t, v]."""

    name = "logistic"
    formula = "ln(1 + eˣ)"
    cost = "O(n)"
    source = "optimality: x + t·f'(x) = v"
    traits = frozenset({Trait.SEPARABLE, Trait.SMOOTH})
    patterns = (Op("logistic"),)
    spellings = (
        Spelling(text="sum(logistic(x))"),
        Spelling(text="sum(logistic(-x))", variables={"x": (2, 3)}, arg="-x"),
        Spelling(text="w @ logistic(x)", parameters={"w": ((5,), {"nonneg": True})}, weight="w"),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        f: Tensor = torch.logaddexp(x, torch.zeros_like(x))
        return f

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return _ROOT(v, step)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        p = y.clamp(0.0, 1.0)
        entropy: Tensor = torch.xlogy(p, p) + torch.special.xlog1py(1.0 - p, -p)
        return entropy + indicator((y - p).abs(), y.abs())
