"""The logistic function, f(x) = ln(1 + eˣ), entry by entry: logistic regression."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.roots import Entrywise
from opteq_cvx.ir.pattern import Op

FAR = -1e3  # below, y is small beside −k
STEPS = 5  # from the start below the error of Newton's method is 1e-8 after three steps, for every v and t


@dataclass(frozen=True, slots=True)
class _Root(Entrywise):
    """x + t·σ(x) = v, with dx = (dv − σ(x) dt)/(1 + t·σ'(x)).

    By symmetry |x| = y solves y − t·σ(−y) = k, k = max(v − t, −v), free of cancellation. The start: with e⁻ʸ for σ(−y)
    the root is k + ω(ln t − k); far below 0, where that cancels, −k stands for y − k, and it is ln((t + k)/−k).
    Newton's method meets no inflection on the way and needs no bracket.
    """

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, t = inputs
        k = torch.maximum(v - t, -v)
        tiny = torch.finfo(v.dtype).tiny
        z = t.clamp_min(tiny).log() - k
        w = softplus(z).clamp_min_(tiny)
        y = w.log().neg_().add_(z).add_(1.0).mul_(w).div_(w.add_(1.0)).add_(k)
        bound = torch.maximum(v, t - v).div_(k.neg().clamp_min_(tiny)).log_()
        y = torch.where(k > FAR, y, bound).clamp_min_(0.0)
        q, slope = torch.empty_like(y), torch.empty_like(y)
        for _ in range(STEPS):
            torch.sigmoid(torch.neg(y, out=q), out=q)
            torch.mul(q, q, out=slope).neg_().add_(q).mul_(t).add_(1.0)
            y.sub_(q.mul_(t).neg_().add_(y).sub_(k).div_(slope))
        return torch.where(v - t >= -v, y, y.neg())

    @override
    def partials(self, x: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        _, t = inputs
        p = torch.sigmoid(x)
        rate = 1.0 / (1.0 + t * p * torch.sigmoid(-x))
        return rate, -p * rate


_ROOT = _Root()


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
