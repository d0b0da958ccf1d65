"""The log-sum-exp f(x) = ln Σ eˣ along axes: softmax, cross entropy of many classes."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import Reducing, join, split
from opteq_cvx.atoms.contract import Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.roots import Implicit, newton, next_omega, wright_omega
from opteq_cvx.ir.pattern import Op

NEAR = 0.25
"""The longest step over which ω is followed by one step of its iteration."""


@dataclass(frozen=True, slots=True)
class _Root(Implicit):
    """x + t·softmax(x) = v along the last axis: x_i + t·exp(x_i − s) = v_i for the one s where softmax sums to 1.

    Derivative D + t·Dp(Dp)ᵀ/(pᵀD1) with D = 1/(1 + t·p), p = softmax(x).
    """

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, step = inputs
        t = torch.where(step > 0, step, 1.0)
        log_t = t.log()
        high = v.logsumexp(-1, keepdim=True)

        last: list[Tensor] = []  # s and ω of the last step

        def residual(s: Tensor) -> tuple[Tensor, Tensor]:
            z = v - s + log_t
            omega = wright_omega(z) if not last or _far(s, last[0]) else next_omega(z, last[1], last[0] - s)
            last[:] = [s, omega]
            total = omega.sum(-1, keepdim=True)
            return log_t - total.log(), (omega / (1.0 + omega)).sum(-1, keepdim=True) / total

        room = 8.0 * torch.finfo(v.dtype).eps * (high.abs() + t)  # one entry above all others: the root is high − t
        s = newton(residual, high - t - room, high, high - t / v.shape[-1], high.abs())
        omega = wright_omega(v - s + log_t)
        large = omega > 1.0
        x = torch.where(large, torch.where(large, omega, 1.0).log() + (s - log_t), v - omega)
        return torch.where(step > 0, x, v)

    def _apply(self, p: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """The derivative by v, symmetric, times h."""
        rate = 1.0 / (1.0 + t * p)
        total = (p * rate).sum(-1, keepdim=True)
        return rate * (h + t * p * (p * rate * h).sum(-1, keepdim=True) / total)

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        p = x.softmax(-1)
        return self._apply(p, inputs[1], tangents[0] - p * tangents[1])

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        p = x.softmax(-1)
        back = self._apply(p, inputs[1], grad)
        return back, -(p * back).sum(-1, keepdim=True)


def _crossing(v: Tensor, c: Tensor, rise: float) -> Tensor:
    """μ with ln Σ eˣ = c + aμ at x + μ·softmax(x) = v, along the last axis; a = `rise`.

    There the softmax is e^(x − c − aμ), so that μ is the root of Σ ω(v − c − aμ + ln μ) = μ, of its logarithm here.
    Convexity bounds it: (f(v) − c)/(1 + a) ≤ μ ≤ (f(v) − c)/(1/n + a).
    """
    whole = v.logsumexp(-1, keepdim=True)
    excess = whole - c
    excess = torch.where(excess > 0, excess, torch.where(excess.isnan(), excess, 1.0))
    low, high = excess / (1.0 + rise), excess / (1.0 / v.shape[-1] + rise)

    def residual(mu: Tensor) -> tuple[Tensor, Tensor]:
        log_mu = mu.log()
        omega = wright_omega(v - c - rise * mu + log_mu)
        total = omega.sum(-1, keepdim=True)
        share = (omega / (1.0 + omega)).sum(-1, keepdim=True) / total
        return log_mu - total.log(), (1.0 - (1.0 - rise * mu) * share) / mu

    room = 1.0 + 8.0 * torch.finfo(v.dtype).eps
    return newton(residual, low / room, high * room, low, whole.abs() + c.abs())


def _far(s: Tensor, last: Tensor) -> bool:
    """Whether ω cannot be followed from the last step; it is where nobody can look."""
    if s.device.type != "cpu" or torch.compiler.is_compiling():
        return True
    return not bool(((s - last).abs() <= NEAR).all())


_ROOT = _Root()


@dataclass(frozen=True, slots=True)
class LogSumExp(Reducing):
    """f(x) = ln Σ eˣ; prox by one root, the logarithm of the sum at the solution."""

    name = "log_sum_exp"
    formula = "ln Σ eˣ"
    cost = "O(n) a step of the root, about ten steps"
    source = "optimality: x + t·softmax(x) = v, with the Wright ω function"
    traits = frozenset({Trait.SMOOTH})
    patterns = (Op("log_sum_exp"),)
    spellings = (
        Spelling(text="log_sum_exp(x)"),
        Spelling(text="sum(log_sum_exp(x, axis=0))", variables={"x": (3, 4)}, static={"axes": (-2,)}),
        Spelling(
            text="w @ log_sum_exp(x, axis=1)",
            variables={"x": (3, 4)},
            parameters={"w": ((3,), {"nonneg": True})},
            weight="reshape(w, (3, 1), order='C')",
        ),
        Spelling(text="log_sum_exp(x)", variables={"x": (2, 3)}, static={"axes": (-2, -1)}),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return x.logsumexp(self.axes, keepdim=True)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        flat, t = join(v, self.axes), join(step, self.axes)
        return split(_ROOT(flat, t.expand((*flat.shape[:-1], 1))), self.axes, v.shape)

    @override
    def crossing(self, v: Tensor, c: Tensor, rise: float, data: Data) -> Tensor | None:
        found = _crossing(join(v, self.axes), join(c, self.axes), rise)
        return split(found, self.axes, c.shape)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        p = torch.relu(y)
        outside = (y.sum(self.axes, keepdim=True) - 1.0).abs() + (p - y).sum(self.axes, keepdim=True)
        return torch.xlogy(p, p).sum(self.axes, keepdim=True) + indicator(outside, y.abs().sum(self.axes, keepdim=True))
