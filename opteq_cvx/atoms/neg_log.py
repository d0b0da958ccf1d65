"""The negative logarithm, f(x) = −ln x, entry by entry: log barriers, likelihoods."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.roots import Entrywise
from opteq_cvx.ir.pattern import Op
from opteq_cvx.maps.peek import hidden


@dataclass(frozen=True, slots=True)
class _Root(Entrywise):
    """x − t/x = v, x > 0; the derivatives are x/r and 1/r with r = x + t/x = √(v² + 4t).

    With q = (|v| + r)/2 the roots of the quadratic are q and −t/q up to sign, and x = max(v, 0) + t/q: one formula
    for both signs of v, without cancellation. Where v² may overflow, and where nobody can look, r is a hypotenuse.
    """

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, t = inputs
        size = v.abs()
        if _small(size):
            twice = torch.addcmul((4.0 * t).clamp_min_(torch.finfo(v.dtype).tiny), v, v).sqrt_().add_(size)
        else:
            twice = torch.hypot(v, t.sqrt().mul_(2.0)).add_(size).clamp_min_(torch.finfo(v.dtype).tiny)
        positive = torch.clamp_min(v, 0.0, out=size)
        if positive.shape != twice.shape:
            return torch.addcdiv(positive, t, twice, value=2.0)
        return positive.addcdiv_(t, twice, value=2.0)

    @override
    def partials(self, x: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        v, _ = inputs
        r = 2.0 * x - v
        some = r > 0
        rate = torch.where(some, 1.0 / torch.where(some, r, 1.0), 0.0)
        return x * rate, rate


def _small(size: Tensor) -> bool:
    """Whether no square overflows, which is asked on the CPU only; NaN counts as large."""
    if size.device.type != "cpu" or hidden(size) or not size.numel():
        return False
    return float(size.amax()) < float(torch.finfo(size.dtype).max ** 0.5)


_ROOT = _Root()


@dataclass(frozen=True, slots=True)
class NegLog(Atom):
    """f(x) = −ln x for x > 0; prox (v + √(v² + 4t))/2."""

    name = "neg_log"
    formula = "−ln x"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.1.3"
    traits = frozenset({Trait.SEPARABLE})
    patterns = (Op("neg_log"),)
    spellings = (
        Spelling(text="-sum(log(x))", draw=(0.1, 3.0)),
        Spelling(text="-sum(log(x))", variables={"x": (2, 3)}, draw=(0.1, 3.0)),
        Spelling(text="-w @ log(x)", parameters={"w": ((5,), {"nonneg": True})}, weight="w", draw=(0.1, 3.0)),
        Spelling(text="-sum(log1p(x))", arg="1 + x", draw=(-0.9, 3.0)),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return torch.where(x <= 0, torch.inf, -torch.where(x <= 0, 1.0, x).log())

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return _ROOT(v, step)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return torch.where(y >= 0, torch.inf, -1.0 - torch.where(y >= 0, 1.0, -y).log())
