"""A solution with its multipliers, and the Lagrangian there as a function of the problem data.

For min_x ½xᵀPx + qᵀx + g(Kx + b; θ) with w = Kx + b and y ∈ ∂g(w; θ), the derivative of the optimal value in the data
is that of the Lagrangian with (x, y) held fixed. Of g only its prox is needed, through the Moreau envelope
    M(v; θ) = min_w g(w; θ) + ½‖w − v‖²/t at v = w + ty:  ∂_θM = ∂_θg where g is a function, −⟨y, ∂_θΠ⟩ for sets.
Source: envelope theorem (Danskin, Bonnans & Shapiro 2000, section 4.3); Moreau 1965.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.atoms import Trait
from opteq_cvx.ir.frozen import IntArray
from opteq_cvx.splitting import blocks
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.system import matmul

SEED = 20210528  # of the probe


@dataclass(frozen=True, slots=True)
class Proximal:
    """g as blocks on m coordinates; θ = (P, q, K, b, *data) in graph form, else w = x and θ = (P, q, *data).

    Splittings with another θ derive their own.
    """

    blocks: tuple[Block, ...]
    m: int
    order: IntArray | None
    graph: bool

    def data(self, theta: Sequence[Tensor]) -> Sequence[Tensor]:
        """What of θ belongs to the blocks."""
        return theta[4:] if self.graph else theta[2:]

    def prox(self, step: Tensor, theta: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        """w = prox of v (B, m)."""
        return blocks.bind(self.blocks, self.m, step, self.data(theta), self.order)

    def slope(self, x: Tensor, theta: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(Px, q), both (1|B, n)."""
        p = theta[0]
        return x * p if p.ndim == 2 else matmul(x, p), theta[1]

    def diagonal(self, theta: Sequence[Tensor]) -> Tensor | None:
        """A diagonal (1|B, n) that P is not below; None where P is not split so."""
        return theta[0] if theta[0].ndim == 2 else None

    def image(self, x: Tensor, theta: Sequence[Tensor]) -> Tensor:
        """Kx + b (B, m)."""
        return matmul(x, theta[2].mT) + theta[3] if self.graph else x

    def back(self, y: Tensor, theta: Sequence[Tensor]) -> Tensor:
        """Kᵀy (B, n)."""
        return matmul(y, theta[2]) if self.graph else y

    def value(self, w: Tensor, theta: Sequence[Tensor]) -> Tensor:
        """g(w) (B,) without its sets."""
        total, values = w.new_zeros(w.shape[0]), list(self.data(theta))
        for block in self.blocks:
            own, values = values[: len(block.exprs)], values[len(block.exprs) :]
            if Trait.SET not in block.f.traits:
                rows = torch.as_tensor(block.index.reshape(-1).copy(), device=w.device)
                total = total + block.value(w.index_select(1, rows), own)
        return total


@dataclass(frozen=True, slots=True)
class Saddle:
    """x (B, n), w and y (B, m), and a step t of the proxes, (1|B,) or (1|B, m), for which w = prox(w + ty)."""

    part: Proximal
    x: Tensor
    w: Tensor
    y: Tensor
    step: Tensor

    def lagrangian(self, theta: Sequence[Tensor]) -> Tensor:
        """ℒ(x, y; θ) (B,), its derivative in θ that of the optimal value; equal to it at the θ of the solution."""
        curved, q = self.part.slope(self.x, theta)
        return ((0.5 * curved + q) * self.x).sum(1) + self.proximal(theta)

    def shares(self, theta: Sequence[Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
        """The point and the multiplier of each term's argument, both (B, *argument), by id of the term."""
        values, found = list(self.part.data(theta)), dict[int, tuple[Tensor, Tensor]]()
        for block in self.part.blocks:
            own, values = values[: len(block.exprs)], values[len(block.exprs) :]
            rows = torch.as_tensor(block.index.reshape(-1).copy(), device=self.w.device)
            for term, w, y in block.shares(self.w.index_select(1, rows), self.y.index_select(1, rows), own):
                found[id(term)] = (w, y)
        return found

    def proximal(self, theta: Sequence[Tensor]) -> Tensor:
        """The part of ℒ that belongs to g (B,)."""
        t = self.step if self.step.ndim == 2 else self.step[:, None]
        v = self.w + t * self.y
        w = self.part.prox(self.step, theta)(v)
        gap = (((w - v) ** 2 - (self.w - v) ** 2) / t).sum(1)
        total = self.part.value(w, theta) + 0.5 * gap
        if self.part.graph:
            total = total + (self.y * (self.part.image(self.x, theta) - self.w)).sum(1)
        return total

    def same_piece(self, other: "Saddle", theta: Sequence[Tensor], slack: float) -> Tensor:
        """(B,) whether the prox is one affine map from this point to `other`: the active sets are the same.

        Its Jacobian is compared through one random vector, at both ends and in the middle. For a prox that is not
        piecewise affine they differ, unless by less than `slack`.
        """
        t = self.step if self.step.ndim == 2 else self.step[:, None]
        prox = self.part.prox(self.step, theta)
        ends = (self.w + t * self.y, other.w + t * other.y)
        middle = 0.5 * (ends[0] + ends[1])
        probe = torch.randn(self.part.m, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
        r = probe.to(self.w).expand_as(self.w)
        images, slopes = [], []
        for v in (*ends, middle):
            found = torch.func.vjp(prox, v)
            images.append(found[0])
            slopes.append(found[1](r)[0])
        straight = _top(images[2] - 0.5 * (images[0] + images[1])) <= slack * _top(ends[1] - ends[0])
        return straight & (_top(slopes[1] - slopes[0]) <= slack) & (_top(slopes[2] - slopes[0]) <= slack)

    def take(self, rows: Tensor) -> "Saddle":
        """The samples `rows`."""
        step = self.step if self.step.shape[0] == 1 else self.step[rows]
        return Saddle(self.part, self.x[rows], self.w[rows], self.y[rows], step)

    def detach(self) -> "Saddle":
        """The same point without autograd history."""
        return Saddle(self.part, self.x.detach(), self.w.detach(), self.y.detach(), self.step.detach())

    def halves(self) -> tuple["Saddle", "Saddle"]:
        """The first and the second half of the batch."""
        rows = torch.arange(self.x.shape[0], device=self.x.device)
        return self.take(rows[: len(rows) // 2]), self.take(rows[len(rows) // 2 :])


def _top(x: Tensor) -> Tensor:
    return x.abs().amax(dim=1) if x.shape[1] else x.new_zeros(x.shape[0])
