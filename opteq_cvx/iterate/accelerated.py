"""Nesterov momentum with a restart per sample, for maps that are gradient or proximal-gradient steps."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.iterate.contract import Iterate, Iteration, Progress, Restrict, Stop
from opteq_cvx.iterate.driver import drive
from opteq_cvx.iterate.rule import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerated(Iteration):
    """x_{k+1} = T(y_k), y_{k+1} = x_{k+1} + b_k (x_{k+1} − x_k), b_k = (t_k − 1)/t_{k+1}, 2t_{k+1} = 1 + √(1 + 4t_k²).

    A sample restarts (t = 1, no momentum) when ⟨y_k − x_{k+1}, x_{k+1} − x_k⟩ > 0, or when its residual grew by more
    than `growth` since the last restart's best, which also tames maps that are no gradient steps.
    Source: Nesterov 1983; O'Donoghue and Candès, Adaptive restart for accelerated gradient schemes, 2015.
    """

    growth: float = 2.0

    @override
    def run(
        self,
        restrict: Restrict,
        z0: Tensor,
        stop: Stop,
        *,
        history: bool = False,
        progress: Progress | None = None,
    ) -> Iterate:
        return drive(Momentum(z0, self.growth), restrict, z0, stop, history=history, progress=progress)


class Momentum(Rule):
    """The state is y; x is the last image; t and the smallest residual are kept per sample."""

    def __init__(self, z0: Tensor, growth: float) -> None:
        self.growth = growth
        self.x = z0.clone()
        self.gap, self.move, self.next = torch.empty_like(z0), torch.empty_like(z0), torch.empty_like(z0)
        self.t = torch.ones_like(z0[:, :1])
        self.least = torch.full_like(self.t, torch.inf)

    @override
    def advance(self, z: Tensor, image: Tensor) -> Tensor:
        gap, move = torch.sub(z, image, out=self.gap), torch.sub(image, self.x, out=self.move)
        residual = torch.linalg.vector_norm(gap, dim=1, keepdim=True)
        uphill = gap.mul_(move).sum(1, keepdim=True) > 0
        restart = uphill.logical_or_(residual > self.growth * self.least)
        self.least = torch.where(restart, residual, torch.minimum(self.least, residual))
        t = torch.where(restart, 1.0, self.t)
        self.t = t.square().mul_(4.0).add_(1.0).sqrt_().add_(1.0).mul_(0.5)
        momentum = torch.where(restart, 0.0, (t - 1.0).div_(self.t))
        self.x.copy_(image)
        return torch.addcmul(image, momentum, move, out=self.next)

    @override
    def take(self, rows: Tensor) -> None:
        self.x, self.t, self.least = self.x[rows], self.t[rows], self.least[rows]
        self.gap, self.move, self.next = self.gap[rows], self.move[rows], self.next[rows]
