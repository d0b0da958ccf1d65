"""The plain iteration z⁺ = (1 − a) z + a T(z): Picard for a = 1, Krasnoselskii-Mann for a in (0, 1) or above."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.iterate.contract import Iterate, Iteration, Progress, Restrict, Stop
from opteq_cvx.iterate.driver import drive
from opteq_cvx.iterate.rule import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain(Iteration):
    """z⁺ = (1 − a) z + a T(z), a = `relaxation`.

    Converges for an averaged or contractive T at a = 1, for any nonexpansive T at a in (0, 1), and for a
    firmly nonexpansive T (Douglas-Rachford) at a in (0, 2). Source: Krasnoselskii 1955; Mann 1953.
    `graphs` records the steps between two checks as a CUDA graph, see `iterate.replay`; elsewhere it changes nothing.
    """

    relaxation: float = 1.0
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
        rule = Picard() if self.relaxation == 1.0 else Mann(z0, self.relaxation)
        return drive(rule, restrict, z0, stop, history=history, progress=progress, graphs=self.graphs)


class Picard(Rule):
    """z⁺ = T(z)."""

    carried = ()

    @override
    def advance(self, z: Tensor, image: Tensor) -> Tensor:
        return image

    @override
    def take(self, rows: Tensor) -> None:
        return None


class Mann(Rule):
    """z⁺ = z + a (T(z) − z)."""

    carried = ()

    def __init__(self, z0: Tensor, relaxation: float) -> None:
        self.relaxation = relaxation
        self.next = torch.empty_like(z0)

    @override
    def advance(self, z: Tensor, image: Tensor) -> Tensor:
        return torch.lerp(z, image, self.relaxation, out=self.next)

    @override
    def take(self, rows: Tensor) -> None:
        self.next = self.next[rows]
