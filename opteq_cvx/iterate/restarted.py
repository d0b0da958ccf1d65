"""Halpern's iteration on the reflected map with restarts: linear convergence with one vector of memory."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.iterate.contract import Iterate, Iteration, Progress, Restrict, Stop
from opteq_cvx.iterate.driver import drive
from opteq_cvx.iterate.rule import Rule

SUFFICIENT, NECESSARY, LONG = 0.2, 0.8, 0.36


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartedHalpern(Iteration):
    """z⁺ = p + (k + 1)/(k + 2) · (z + a (T(z) − z) − p), a = `relaxation`, p the anchor.

    At a restart the anchor moves to T(z) and k to 0. A sample restarts when its residual has fallen to 0.2 of that at
    its last restart; or to 0.8 of it and rises again; or after a run longer than 0.36 of all its steps. a = 2 is
    for firmly nonexpansive maps.
    Source: Lu & Yang, *Restarted Halpern PDHG for linear programming*, arXiv 2407.16144; Lieder 2021.
    """

    relaxation: float = 1.0

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
        rule = Anchored(z0, self.relaxation)
        return drive(rule, restrict, z0, stop, history=history, progress=progress)


class Anchored(Rule):
    """The state of a run: anchors p (B, d), and per sample k, all steps, and the residuals that decide (B,)."""

    def __init__(self, z0: Tensor, relaxation: float) -> None:
        self.relaxation = relaxation
        self.anchor, self.next = z0.clone(), torch.empty_like(z0)
        rows = z0.shape[0]
        self.count, self.total = z0.new_zeros(rows), z0.new_zeros(rows)
        self.since, self.last = z0.new_full((rows,), torch.inf), z0.new_full((rows,), torch.inf)
        self.restart = torch.zeros(rows, dtype=torch.bool, device=z0.device)
        self.pending = False

    @override
    def advance(self, z: Tensor, image: Tensor) -> Tensor:
        if self.pending:  # only after a check
            self.anchor = torch.where(self.restart[:, None], image, self.anchor)
            self.count = torch.where(self.restart, 0.0, self.count)
            self.pending = False
            z = torch.where(self.restart[:, None], image, torch.lerp(z, image, self.relaxation))
            share = torch.where(self.restart, 1.0, (self.count + 1.0) / (self.count + 2.0))
        else:
            z = torch.lerp(z, image, self.relaxation)
            share = (self.count + 1.0) / (self.count + 2.0)
        self.count = self.count + 1.0
        return torch.lerp(self.anchor, z, share[:, None], out=self.next)

    @override
    def observe(self, residual: Tensor, steps: int) -> None:
        self.total = self.total + steps
        first = torch.isinf(self.since)
        self.since = torch.where(first, residual, self.since)
        fell = residual <= SUFFICIENT * self.since
        turned = (residual <= NECESSARY * self.since) & (residual > self.last)
        long = self.count >= LONG * self.total
        self.restart = ~first & (fell | turned | long)
        self.since = torch.where(self.restart, residual, self.since)
        self.last = torch.where(self.restart, torch.inf, residual)
        self.pending = True

    @override
    def take(self, rows: Tensor) -> None:
        self.anchor, self.next = self.anchor[rows], self.next[rows]
        self.count, self.total, self.since = self.count[rows], self.total[rows], self.since[rows]
        self.last, self.restart = self.last[rows], self.restart[rows]
