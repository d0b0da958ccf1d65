"""Constant momentum, tuned per sample to the contraction that is observed, for certified proximal-gradient steps."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.iterate.contract import Iterate, Iteration, Progress, Restrict, Stop
from opteq_cvx.iterate.driver import Rule, drive

LARGEST = 1.0 - 1e-6  # a rate above this is not told from none
REAL = 1e-3  # the denominator from which the formula for real roots is used


@dataclass(frozen=True, slots=True, kw_only=True)
class Inertial(Iteration):
    """x_{k+1} = T(y_k), y_{k+1} = x_{k+1} + b (x_{k+1} − x_k), b = (1 − √(1 − ρ)) / (1 + √(1 − ρ)).

    ρ is the rate at which plain steps would converge, read from the residuals at every check: on the face that the
    iterates have reached it is that of the reduced problem, often far below the certified one. A step costs one lerp
    beside T. A sample whose residual grew takes plain steps until the next check, and from then on at most half that
    momentum, so that a contraction always converges.
    Source: Nesterov, *Introductory Lectures on Convex Optimization* (2004), scheme 2.2.11; the linear analysis that ρ
    is read from: O'Donoghue and Candès, *Adaptive restart for accelerated gradient schemes* (2015), section 4.
    """

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
        return drive(Tuned(z0), restrict, z0, stop, history=history, progress=progress)


class Tuned(Rule):
    """The state is y; x is the last image; per sample: momentum, its limit, and the residual at the last check."""

    def __init__(self, z0: Tensor) -> None:
        self.x, self.next = torch.empty_like(z0), torch.empty_like(z0)
        self.momentum, self.limit = torch.zeros_like(z0[:, :1]), torch.ones_like(z0[:, :1])
        self.weight = self.limit  # 1 + momentum
        self.residual: Tensor | None = None
        self.plain = True  # no momentum yet

    @override
    def advance(self, z: Tensor, image: Tensor) -> Tensor:
        if self.plain:
            self.x.copy_(image)
            return image
        torch.lerp(self.x, image, self.weight, out=self.next)
        self.x.copy_(image)
        return self.next

    @override
    def observe(self, residual: Tensor, steps: int) -> None:
        residual = residual[:, None]
        if self.residual is not None:
            self.momentum = self.tune(residual.div(self.residual).pow_(1.0 / steps), self.momentum)
            self.weight, self.plain = self.momentum + 1.0, False
        self.residual = residual

    def tune(self, rate: Tensor, b: Tensor) -> Tensor:
        """The momentum for the next steps, from the observed rate r with momentum b.

        The slowest mode λ = ρ of x⁺ = λ((1 + b) x − b x⁻) has r² − ρ(1 + b) r + ρ b = 0: real roots give ρ = r²/((1 +
        b) r − b), complex ones ρ = r²/b; the double root is at r = 2b/(1 + b).
        """
        grew = rate.lt(1.0).logical_not_()  # NaN too
        self.limit = (
            torch.where(grew, torch.minimum(self.limit, 0.5 * b), self.limit) if bool(grew.any()) else self.limit
        )
        pull = rate * (1.0 + b)
        rho = rate.square().div_(torch.where(pull > 2.0 * b, pull - b, b).clamp_min_(REAL))
        root = (1.0 - rho.clamp_(0.0, LARGEST)).sqrt_()
        return torch.minimum((1.0 - root).div_(1.0 + root), self.limit).masked_fill_(grew, 0.0)

    @override
    def take(self, rows: Tensor) -> None:
        self.x, self.next, self.limit = self.x[rows], self.next[rows], self.limit[rows]
        self.momentum, self.weight = self.momentum[rows], self.weight[rows]
        if self.residual is not None:
            self.residual = self.residual[rows]
