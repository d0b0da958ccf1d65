"""Halpern's iteration, anchored: of many fixed points it picks the one nearest to the anchor."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.errors import InputError, message
from opteq_cvx.iterate.contract import Iterate, Iteration, Progress, Restrict, Stop
from opteq_cvx.iterate.driver import drive
from opteq_cvx.iterate.rule import Rule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Halpern(Iteration):
    """z_{k+1} = b_k p + (1 − b_k) T(z_k), b_k = 1/(k + 2); the limit is the projection of p on Fix T.

    p is `anchor` (d,), (1, d) or (B, d); None stands for the start z_0, with ‖z_k − T(z_k)‖ ≤ 2‖z_0 − z*‖/(k + 1).
    Sublinear by nature: for choosing among fixed points, not for speed.
    Source: Lieder, On the convergence rate of the Halpern-iteration, Optim. Lett. 15, 2021.
    """

    anchor: Tensor | None = None

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
        anchor = z0 if self.anchor is None else self.anchor.detach().to(z0)
        batch, d = z0.shape
        if tuple(anchor.shape) not in ((d,), (1, d), (batch, d)):
            found = f"Halpern(anchor=...) of shape {tuple(anchor.shape)}"
            expected = f"{(d,)}, {(1, d)} or {(batch, d)}"
            raise InputError(message(found, expected, "pass an anchor in the state's space"))
        return drive(Anchored(z0, anchor.expand_as(z0)), restrict, z0, stop, history=history, progress=progress)


class Anchored(Rule):
    """z⁺ = T(z) + b_k (p − T(z))."""

    def __init__(self, z0: Tensor, anchor: Tensor) -> None:
        self.anchor = anchor
        self.next = torch.empty_like(z0)
        self.count = 0

    @override
    def advance(self, z: Tensor, image: Tensor) -> Tensor:
        self.count += 1
        return torch.lerp(image, self.anchor, 1.0 / (self.count + 1), out=self.next)

    @override
    def take(self, rows: Tensor) -> None:
        self.anchor, self.next = self.anchor[rows], self.next[rows]
