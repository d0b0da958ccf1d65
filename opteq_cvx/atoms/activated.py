"""Functions f whose prox at step 1 is an activation σ, entry by entry; the prox at any step is one root.

With x = σ(a) the condition x + t f'(x) = v is (1 − t)σ(a) + t·a = v, for f' = σ⁻¹ − id: increasing in a with a
slope between 1 and t. Source: Combettes, Pesquet, arXiv 1808.07526, section 2.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.activations import Activation
from opteq_cvx.atoms.contract import Atom, Data, Recognized
from opteq_cvx.atoms.primitives import clip
from opteq_cvx.atoms.roots import Entrywise, newton
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class _Argument(Entrywise):
    """a with (1 − t)σ(a) + t·a = v, for t > 0."""

    sigma: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, t = inputs
        rest = v - (1.0 - t) * self.sigma(torch.zeros_like(v))
        ends = rest, rest / t

        def residual(a: Tensor) -> tuple[Tensor, Tensor]:
            return (1.0 - t) * self.sigma(a) + t * a - v, (1.0 - t) * self.slope(a) + t

        return newton(residual, torch.minimum(*ends), torch.maximum(*ends), start=ends[0].clone())

    @override
    def partials(self, x: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        _, t = inputs
        rate = 1.0 / ((1.0 - t) * self.slope(x) + t)
        return rate, -(x - self.sigma(x)) * rate


@dataclass(frozen=True, slots=True)
class Activated(Atom):
    """An atom of one row of `opteq_cvx.activations`; its static attributes are the row's options."""

    @property
    @abstractmethod
    def row(self) -> Activation:
        """σ and f."""

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        if node.op != cls.name or len(node.args) != 1 or node.args[0].affine is None:
            return None
        return Recognized(node.args[0].affine, static=FrozenDict(node.attrs))

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return self.row.f(x)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        row = self.row
        some = step > 0
        a = _Argument(row.sigma, row.slope)(v, torch.where(some, step, 1.0))
        ends = (torch.full_like(v, end) for end in (row.lower, row.upper))
        return torch.where(some, row.sigma(a), clip(v, *ends))
