"""Constant momentum, tuned per sample to the contraction that is observed, for certified proximal-gradient steps."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.descent import Map, Steps
from opteq_cvx.iterate.contract import Iterate, Iteration, Progress, Restrict, Stop
from opteq_cvx.iterate.driver import drive
from opteq_cvx.iterate.heavy_ball import heavy_ball
from opteq_cvx.iterate.rule import Rule

LARGEST = 1.0 - 1e-6  # a rate above this is not told from none
REACH = 3e-6  # the relative residual down to which steps in float32 are as good as others
MOST_COARSE = 100  # steps in float32 at most
EAGER, SELDOM = 3, 4  # the momentum is tuned at the first rates seen, then at every so many
REAL = 1e-3  # the denominator from which the formula for real roots is used


@dataclass(frozen=True, slots=True, kw_only=True)
class Inertial(Iteration):
    """For proximal-gradient steps on the CPU the heavy ball (see `iterate.heavy_ball`), else Nesterov's momentum:

    x_{k+1} = T(y_k), y_{k+1} = x_{k+1} + b (x_{k+1} − x_k), b = (1 − √(1 − ρ)) / (1 + √(1 − ρ)).

    Here ρ is the rate at which plain steps would converge, read from the residuals at every check: on the face that the
    iterates have reached it is that of the reduced problem, often far below the certified one. A step costs one lerp
    beside T. A sample whose residual grew takes plain steps until the next check, and from then on at most half that
    momentum, so that a contraction always converges.
    Source: Nesterov, *Introductory Lectures on Convex Optimization* (2004), scheme 2.2.11; the linear analysis that ρ
    is read from: O'Donoghue and Candès, *Adaptive restart for accelerated gradient schemes* (2015), section 4.

    Args:
        fused: take the heavy ball's steps between two checks in one Triton kernel: on a CUDA device in float32, for
            programs of one shared matrix, up to 512 unknowns and a prox of signs, bounds and l1 norms. Others, and
            machines without Triton, take the same steps by torch. Off until it is measured on your device.
        graphs: record the steps between two checks as a CUDA graph, for any program, see `iterate.replay`; elsewhere
            it changes nothing. Off until it is measured on your device.
    """

    fused: bool = False
    graphs: bool = False

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
        if (heavy(z0) or (self.fused and z0.shape[0] > 0)) and isinstance(restrict(None), Steps):
            return heavy_ball(restrict, z0, stop, history=history, progress=progress, fused=self.fused)
        return drive(Tuned(z0), restrict, z0, stop, history=history, progress=progress, graphs=self.graphs)

    def run_mixed(self, coarse: Map, restrict: Restrict, z0: Tensor, stop: Stop) -> Iterate:
        """As `run`, with the early steps by `coarse`, the same map in float32, momentum carried over.

        The switch comes when half the samples are within the reach of float32.
        """
        if (heavy(z0) or (self.fused and z0.shape[0] > 0)) and isinstance(coarse, Steps):
            return heavy_ball(restrict, z0, stop, coarse=coarse, fused=self.fused)
        rule, z, steps, pause = Tuned(z0.float()), z0.float(), 0, 1
        while steps + stop.check_every < stop.max_steps and steps < MOST_COARSE:
            for _ in range(pause - 1):
                z = rule.advance(z, coarse(z))
            image = coarse(z)
            steps += pause
            gap = torch.linalg.vector_norm(z - image, dim=1)
            residual = gap.div_(torch.linalg.vector_norm(z, dim=1).clamp_min_(1.0))
            rule.observe(residual, pause)
            z, pause = rule.advance(z, image), stop.check_every
            if bool(residual.median() <= REACH):
                break
        z = rule.promote(z, z0)
        done = drive(rule, restrict, z, replace(stop, max_steps=stop.max_steps - steps), graphs=self.graphs)
        return replace(done, steps=done.steps + steps)


class Tuned(Rule):
    """The state is y; x is the last image; per sample: momentum, its limit, and the residual at the last check."""

    carried = ("x", "weight")

    def __init__(self, z0: Tensor) -> None:
        self.x, self.next = z0, torch.empty_like(z0)
        self.momentum, self.limit = torch.zeros_like(z0[:, :1]), torch.ones_like(z0[:, :1])
        self.weight = self.limit  # 1 + momentum
        self.residual: Tensor | None = None
        self.looks, self.tuned = 0, False  # rates seen; whether there is momentum yet

    @override
    def advance(self, z: Tensor, image: Tensor) -> Tensor:
        x, self.x = self.x, image
        return torch.lerp(x, image, self.weight, out=self.next) if self.tuned else image

    @override
    def phase(self) -> object:
        return self.tuned

    @override
    def observe(self, residual: Tensor, steps: int) -> None:
        residual, before = residual[:, None], self.residual
        self.residual = residual
        if before is None:
            return
        fell = residual < before  # False for NaN
        calm = bool(fell.all())
        self.looks += 1
        if not calm:
            self.limit = torch.where(fell, self.limit, torch.minimum(self.limit, 0.5 * self.momentum))
        if not calm or self.looks <= EAGER or self.looks % SELDOM == 0:
            tuned = momentum(residual.div(before).pow_(1.0 / steps), self.momentum, self.weight)
            self.momentum = torch.where(fell, torch.minimum(tuned, self.limit), 0.0)
            self.weight, self.tuned = self.momentum + 1.0, True

    def promote(self, z: Tensor, z0: Tensor) -> Tensor:
        """Go on in the dtype of z0 from the state z; samples that are not finite start again at z0."""
        fine = torch.isfinite(z).all(dim=1, keepdim=True)
        z = torch.where(fine, z.to(z0.dtype), z0)
        self.x, self.next = torch.where(fine, self.x.to(z0.dtype), z0), torch.empty_like(z0)
        self.momentum, self.limit = self.momentum.to(z0.dtype), self.limit.to(z0.dtype)
        self.weight, self.residual = self.momentum + 1.0, None
        return z

    @override
    def take(self, rows: Tensor) -> None:
        self.x, self.next, self.limit = self.x[rows], self.next[rows], self.limit[rows]
        self.momentum, self.weight = self.momentum[rows], self.weight[rows]
        if self.residual is not None:
            self.residual = self.residual[rows]


def heavy(z: Tensor) -> bool:
    """Whether the heavy ball may look at its residuals: on a CUDA device every look would wait; none if no samples."""
    return z.device.type == "cpu" and z.shape[0] > 0


def momentum(r: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """The momentum that suits the rate r that was observed with momentum b, weight = 1 + b.

    The slowest mode λ = ρ of x⁺ = λ((1 + b) x − b x⁻) has r² − ρ(1 + b) r + ρ b = 0: real roots give ρ = r²/((1 + b) r
    − b), complex ones ρ = r²/b; the double root is at r = 2b/(1 + b).
    """
    pull = r * weight - b
    rho = r.square().div_(torch.where(pull > b, pull, b).clamp_min_(REAL))
    root = rho.clamp_(0.0, LARGEST).neg_().add_(1.0).sqrt_()
    return (1.0 - root).div_(root.add_(1.0))
