"""The adjoint of a Douglas–Rachford map, reduced to the optimality system of its program: n unknowns in place of n + m.

With the state (√σ x, √R v), D = ∂w/∂v in the coordinates √R v (symmetric, 0 ⪯ D ⪯ I), K̃ = √R K and relaxation a, the
system (I − J)ᵀ w = g has the solution
    w = (g_x/a + √σ t,  K̃t + ρ),   Pᵀt − K̃ᵀρ = √σ g_x/a,   Dρ + (I − D)K̃t = g_v/a,
and (I − J) w = g has
    w = (g_x/a + √σ t,  K̃t + 2g_v/a − ρ),   Pt − K̃ᵀρ = √σ g_x/a,   Dρ + (I − D)K̃t = (2D − I)g_v/a.
Both follow by eliminating x̃ from the linearized step; neither holds the map's own steps any more. Where D is 0 a row is
active, K̃t fixed and ρ its multiplier; where it is 1 the row takes no part.
Source: KKT form of the derivative, Amos & Kolter, *OptNet* (2017), section 3; theory of the map in `douglas_rachford`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.jacobians import Spectrum, formable
from opteq_cvx.splitting.linearization import AutogradLinearization, Product
from opteq_cvx.splitting.system import matmul

LARGE = 1000  # no dense systems with more unknowns than this
Pair = tuple[Tensor, Tensor]
"""(x, y): one part per variable (B, n), one per row (B, m)."""


@dataclass(frozen=True, slots=True)
class Optimality:
    """P̂t̂ − K̂ᵀρ = f_x, Dρ + (I − D)K̂t̂ = f_v in coordinates where P̂ and K̂ have unit size.

    Attributes:
        p: P̂ = ePe (1|B, n, n), transposed where the equation above has it so.
        k: Ke (1|B, m, n), and `root` √R (1|B, m); K̂ = √R Ke.
        scale: e (1|B, n), the size of x; t = e t̂.
        spectrum: of D.
        symmetric: whether P is.
    """

    p: Tensor
    k: Tensor
    root: Tensor
    scale: Tensor
    spectrum: Spectrum
    symmetric: bool

    @staticmethod
    def of(p: Tensor, k: Tensor, root: Tensor, scale: Tensor, spectrum: Spectrum, *, symmetric: bool) -> "Optimality":
        """From P and K themselves."""
        column = scale[:, None, :]
        return Optimality(column * p * column.mT, k * column, root, scale, spectrum, symmetric)

    def image(self, t: Tensor) -> Tensor:
        """K̂ t̂."""
        return self.root * matmul(t, self.k.mT)

    def back(self, y: Tensor) -> Tensor:
        """K̂ᵀ y."""
        return matmul(self.root * y, self.k)

    def curved(self, t: Tensor) -> Tensor:
        """P̂ t̂."""
        return matmul(t, self.p.mT)

    def residual(self, f: Pair, point: Pair) -> Pair:
        """f less both equations at (t̂, ρ)."""
        t, rho = point
        image = self.image(t)
        return f[0] - self.curved(t) + self.back(rho), f[1] - image - self.spectrum.apply(_same, rho - image)

    def regularized(self, delta: float) -> "Regularized":
        """The factored system with δ added to P̂ and to D, relative to their size."""
        eps = delta * self.heights()
        values = self.spectrum.values
        weight = (1.0 - values) / (values + eps)
        h = self.bent(weight)
        h.diagonal(dim1=1, dim2=2).add_(delta)
        return Regularized(self, eps, *_factor(h, self.symmetric))

    def heights(self) -> Tensor:
        """‖K̂_i‖² (1|B, m), the largest of a coupled group for all of it, and 1 for empty rows."""
        size = self.root.square() * self.k.square().sum(dim=2)
        for group in self.spectrum.vectors:
            top = size[:, group.order].amax(dim=2, keepdim=True).expand(-1, *group.order.shape)
            size = size.index_copy(1, group.order.reshape(-1), top.flatten(1))
        return torch.where(size > 0, size, 1.0)

    def bent(self, weight: Tensor) -> Tensor:
        """P̂ + K̂ᵀU diag(weight) UᵀK̂ (B, n, n), from the rows that have a weight."""
        k, r = self.k, self.root.square()
        total = self.p.expand(weight.shape[0], -1, -1)
        for group in self.spectrum.vectors:
            rows, shape = group.order.reshape(-1), group.order.shape
            part = k[:, rows].reshape(k.shape[0], *shape, k.shape[2])
            own = (r * weight)[:, rows].reshape(weight.shape[0], *shape)
            turned = (own.sqrt().unsqueeze(3) * (group.jacobian.mT @ part)).flatten(1, 2)
            total = total + turned.mT @ turned
            weight = weight.index_fill(1, rows, 0.0)
        weight, k = chosen(r * weight, k)
        return torch.baddbmm(total, (weight[:, :, None] * k).mT, k.expand(weight.shape[0], -1, -1))


@dataclass(frozen=True, slots=True)
class Regularized:
    """(P̂ + δ)t − K̂ᵀρ = e_x, (D + ε)ρ + (I − D)K̂t = e_v, ρ eliminated; `sound` (B,): the factor exists."""

    system: Optimality
    eps: Tensor
    solver: Callable[[Tensor], Tensor]
    sound: Tensor

    def solve(self, e: Pair) -> Pair:
        """(t̂, ρ)."""
        system, values = self.system, self.system.spectrum.values
        inverse = 1.0 / (values + self.eps)
        own = system.spectrum.times(inverse, e[1])
        t = self.solver(e[0] + system.back(own))
        return t, own - system.spectrum.times((1.0 - values) * inverse, system.image(t))


class GraphLinearization(AutogradLinearization):
    """J of a map in graph form by products, and on demand the optimality system that the adjoint reduces to.

    Args:
        system: makes `Optimality`, for P or, where transposed, Pᵀ.
        sigma: σ (1|B, n), the proximal weight of x.
        relaxation: a.
        numbers: what the factored system holds for each sample; n² where it is dense.
    """

    def __init__(
        self,
        function: Product,
        z: Tensor,
        system: Callable[[bool], Optimality],
        sigma: Tensor,
        relaxation: float,
        numbers: int | None = None,
    ) -> None:
        super().__init__(function, z)
        self.system, self.sigma, self.relaxation = system, sigma, relaxation
        self.numbers = sigma.shape[1] ** 2 if numbers is None else numbers

    def reduce(self, g: Tensor, transposed: bool) -> tuple[Optimality, Pair, Callable[[Pair], Tensor]]:
        """The system, its right-hand side for g (B, n + m), and w as a function of its solution."""
        system, a, n = self.system(transposed), self.relaxation, self.sigma.shape[1]
        gx, gv = g[:, :n] / a, g[:, n:] / a
        root = self.sigma.sqrt()
        f = (system.scale * (root * gx), gv if transposed else system.spectrum.apply(_twice_less_one, gv))

        def state(point: Pair) -> Tensor:
            t, rho = point
            image = system.image(t)
            rows = image + rho if transposed else image + 2.0 * gv - rho
            return torch.cat([gx + root * (system.scale * t), rows], dim=1)

        return system, f, state


def _same(d: Tensor) -> Tensor:
    return d


def _twice_less_one(d: Tensor) -> Tensor:
    return 2.0 * d - 1.0


def chosen(weight: Tensor, k: Tensor) -> Pair:
    """weight (B, m) and K (1|B, m, n) on as many rows as any sample has weights that are not 0: (B, r), (1|B, r, n)."""
    here = weight > 0
    most = int(here.sum(dim=1).amax()) if here.numel() else 0
    if 4 * most > 3 * weight.shape[1]:
        return weight, k
    index = here.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    rows = k[0][index] if k.shape[0] == 1 else k.gather(1, index[:, :, None].expand(-1, -1, k.shape[2]))
    return weight.gather(1, index), rows


def _factor(h: Tensor, symmetric: bool) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A solver for H (B, n, n), and for which samples it serves (B,)."""
    if symmetric:
        lower, info = torch.linalg.cholesky_ex(h)
        return lambda right: torch.cholesky_solve(right.unsqueeze(2), lower).squeeze(2), info == 0
    factors, pivots, info = torch.linalg.lu_factor_ex(h)
    return lambda right: torch.linalg.lu_solve(factors, pivots, right.unsqueeze(2)).squeeze(2), info == 0


def worthwhile(parts: Sequence[Block], n: int) -> bool:
    """Whether the reduction is cheaper than products with J: few enough unknowns, and D that can be formed."""
    return n <= LARGE and formable(parts)
