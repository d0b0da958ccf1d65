"""A primal–dual interior point method for rows in intervals: finishes badly scaled and degenerate programs.

    min ½xᵀPx + qᵀx,  l ≤ Kx + b ≤ u,
with slacks s = Kx + b − l, t = u − Kx − b and multipliers z, p ≥ 0 of finite bounds, y = p − z; rows with l = u keep a
free y. Each step solves the optimality system, S⁻¹ = z/s + p/t, twice: towards sz = tp = 0, then towards σμ with the
products of the first step subtracted. Degeneracy costs it nothing, where an active set has to be found row by row.
Sources: Mehrotra, *On the implementation of a primal–dual interior point method*, SIAM J. Optim. 2 (1992); for
quadratic programs Gertz & Wright, *OOQP*, ACM Trans. Math. Softw. 29 (2003), section 2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.splitting.kkt import Factored, Optimality
from opteq_cvx.splitting.scaling import bounded, curvature, equilibrate
from opteq_cvx.splitting.sizes import top
from opteq_cvx.splitting.system import matmul

STEPS, PATIENCE = 100, 30  # most steps, and how many of them in a row may bring nothing
INSIDE = 0.99  # share of the way to the boundary
EXACT = 1e-3  # it aims at this share of the tolerance: the last steps are the cheapest
SAME = 1e-12  # bounds nearer to each other, relative to their size, are an equality
Residuals = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(x, w, y) → relative primal, dual and gap residuals (B,)."""


@dataclass(frozen=True, slots=True)
class Point:
    """x (B, n), y of equalities (B, m), slacks s, t and multipliers z, p of lower and upper bounds (B, m)."""

    x: Tensor
    y: Tensor
    s: Tensor
    t: Tensor
    z: Tensor
    p: Tensor

    def moved(self, d: "Point", length: Tensor) -> "Point":
        """The point so far along a direction."""
        a = length[:, None]
        x, y, s, t = self.x + a * d.x, self.y + a * d.y, self.s + a * d.s, self.t + a * d.t
        return Point(x, y, s, t, self.z + a * d.z, self.p + a * d.p)

    def reach(self, d: "Point") -> Tensor:
        """How far along a direction the point stays positive (B,), at most 1."""
        total = torch.ones_like(self.x[:, 0])
        for own, step in ((self.s, d.s), (self.t, d.t), (self.z, d.z), (self.p, d.p)):
            total = torch.minimum(total, torch.where(step < 0, -own / step, torch.inf).amin(dim=1))
        return total


@dataclass(frozen=True, slots=True)
class Bounds:
    """l and u (B, m), 0 where there is none, and which rows have which."""

    lower: Tensor
    upper: Tensor
    below: Tensor
    above: Tensor
    equal: Tensor

    @staticmethod
    def of(lower: Tensor, upper: Tensor) -> "Bounds":
        """From bounds that may be infinite."""
        low, high = torch.isfinite(lower), torch.isfinite(upper)
        equal = low & high & (upper - lower <= SAME * (1.0 + torch.where(low, lower.abs(), 0.0)))
        finite = torch.where(low, lower, 0.0), torch.where(high, upper, 0.0)
        return Bounds(*finite, low & ~equal, high & ~equal, equal)

    @property
    def count(self) -> Tensor:
        """How many products sz and tp there are (B,), at least 1."""
        return (self.below.sum(dim=1) + self.above.sum(dim=1)).clamp_min(1)


@dataclass(frozen=True, slots=True)
class Interior:
    """A program in equilibrated coordinates: P, q (1|B, n), K, the bounds of Kx, and the system of its steps."""

    p: Tensor
    q: Tensor
    k: Tensor
    bounds: Bounds
    system: Optimality

    def start(self) -> Point:
        """Least squares towards the bounds, pushed inside by as much as it violates them."""
        b, ones = self.bounds, torch.ones_like(self.bounds.lower)
        target = torch.where(b.below | b.equal, b.lower.clamp_min(0.0), 0.0)
        target = torch.where(b.above, torch.minimum(target, b.upper), target)
        target = torch.where(b.below | b.equal, torch.maximum(target, b.lower), target)
        factored = self.system.factor(torch.where(b.equal, 0.0, ones))
        x, y = factored.solve(-self.q.expand(ones.shape[0], -1), target)
        w = matmul(x, self.k.mT)
        s, t = _inside(w - b.lower, b.below, b.upper - w, b.above, 1.0)
        z, p = _inside(-y, b.below, y, b.above, 0.0)
        return Point(x, torch.where(b.equal, y, 0.0), s, t, z, p)

    def dual(self, at: Point) -> Tensor:
        """The multipliers of all rows (B, m)."""
        return at.y + at.p - at.z

    def step(self, at: Point) -> Point:
        """The next point."""
        b, w = self.bounds, matmul(at.x, self.k.mT)
        slope = matmul(at.x, self.p) + self.q + matmul(self.dual(at), self.k)
        gaps = (
            torch.where(b.equal, w - b.lower, 0.0),
            torch.where(b.below, w - b.lower - at.s, 0.0),
            torch.where(b.above, b.upper - w - at.t, 0.0),
        )
        slack = torch.where(b.below | b.above, 1.0 / (at.z / at.s + at.p / at.t), 0.0)
        factored = self.system.factor(slack)
        products = at.s * at.z, at.t * at.p
        mean = (products[0] + products[1]).sum(dim=1) / b.count
        d = self._direction(at, factored, slope, gaps, -products[0], -products[1])
        far = at.moved(d, at.reach(d))
        share = ((far.s * far.z + far.t * far.p).sum(dim=1) / b.count / mean).nan_to_num(0.0).clamp(0.0, 1.0) ** 3
        goal = (share * mean)[:, None]
        aim = torch.where(b.below, goal - products[0] - d.s * d.z, 0.0)
        aim_above = torch.where(b.above, goal - products[1] - d.t * d.p, 0.0)
        d = self._direction(at, factored, slope, gaps, aim, aim_above)
        return at.moved(d, INSIDE * at.reach(d))

    def _direction(
        self, at: Point, factored: Factored, slope: Tensor, gaps: tuple[Tensor, ...], low: Tensor, high: Tensor
    ) -> Point:
        """The Newton direction for s dz + z ds = low, t dp + p dt = high."""
        b, (even, below, above), slack = self.bounds, gaps, factored.s
        shift = torch.where(b.above, (high - at.p * above) / at.t, 0.0)
        shift = shift - torch.where(b.below, (low - at.z * below) / at.s, 0.0)
        dx, dy = factored.solve(-slope, torch.where(b.equal, -even, -slack * shift))
        dw = slack * (dy - shift)  # K dx, accurate in relation to the slack
        ds, dt = torch.where(b.below, below + dw, 0.0), torch.where(b.above, above - dw, 0.0)
        dz = torch.where(b.below, (low - at.z * ds) / at.s, 0.0)
        dp = torch.where(b.above, (high - at.p * dt) / at.t, 0.0)
        return Point(dx, torch.where(b.equal, dy, 0.0), ds, dt, dz, dp)


def _inside(low: Tensor, below: Tensor, high: Tensor, above: Tensor, absent: float) -> tuple[Tensor, Tensor]:
    """Two groups of numbers, raised by one amount a sample so that they are positive; `absent` where there is none."""
    least = torch.minimum(torch.where(below, low, torch.inf), torch.where(above, high, torch.inf)).amin(dim=1)
    raised = (-1.5 * least).clamp_min(1.0)[:, None]
    return torch.where(below, low + raised, absent), torch.where(above, high + raised, absent)


@dataclass(frozen=True, slots=True)
class Found:
    """The best point: x (B, n), w = Kx within its bounds and y (B, m), its error, and the steps until then (B,)."""

    x: Tensor
    w: Tensor
    y: Tensor
    error: Tensor
    steps: Tensor


@torch.no_grad()
def finish(
    p: Tensor,
    q: Tensor,
    k: Tensor,
    lower: Tensor,
    upper: Tensor,
    residuals: Residuals,
    *,
    batch: int,
    tolerance: float,
) -> Found:
    """The best point of min ½xᵀPx + qᵀx, lower ≤ Kx ≤ upper, that the method comes across.

    Args:
        p, q, k: P (1|B, n, n), q (1|B, n), K (1|B, m, n).
        lower, upper: (1|B, m), ±∞ where there is no bound.
        residuals: of x, w = Kx within the bounds, y.
        batch: B.
        tolerance: what the error should be below; the method aims at less, since its last steps are the cheapest.
    """
    d, e = equilibrate(p, k, ())
    cost = bounded(torch.maximum(curvature(p, e), top(e * q)))[:, None]
    shape = (batch, k.shape[1])
    bounds = Bounds.of((d * lower).expand(shape), (d * upper).expand(shape))
    scaled, curved = d[:, :, None] * k * e[:, None, :], e[:, :, None] * p * e[:, None, :] / cost[:, :, None]
    system = Optimality.of(curved, scaled, bounds.below | bounds.above | bounds.equal)
    program = Interior(curved, e * q / cost, scaled, bounds, system)
    at, metric = program.start(), cost * d * d
    count = torch.zeros_like(at.s[:, 0], dtype=torch.int64)
    best = Found(at.x, at.y, at.y, torch.full_like(at.s[:, 0], torch.inf), count)
    goal = max(EXACT * tolerance, 10 * torch.finfo(q.dtype).eps)
    for number in range(1, STEPS + 1):
        best = _better(
            best, *_projected(e * at.x, cost * d * program.dual(at), k, lower, upper, metric), residuals, number
        )
        lost = ~torch.isfinite(at.x).all(dim=1)
        if bool(((best.error <= goal) | (number - best.steps > PATIENCE) | lost).all()):
            break
        at = program.step(at)
    return best


def _projected(
    x: Tensor, y: Tensor, k: Tensor, lower: Tensor, upper: Tensor, metric: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x, and w within the bounds with y normal to them there, nearest to Kx and the given multipliers."""
    v = matmul(x, k.mT) + y / metric
    w = torch.minimum(torch.maximum(v, lower), upper)
    return x, w, metric * (v - w)


def _better(best: Found, x: Tensor, w: Tensor, y: Tensor, residuals: Residuals, number: int) -> Found:
    error = torch.stack(residuals(x, w, y)).amax(dim=0).nan_to_num(torch.inf)
    better = error < best.error
    pick = better[:, None]
    return Found(
        torch.where(pick, x, best.x),
        torch.where(pick, w, best.w),
        torch.where(pick, y, best.y),
        torch.where(better, error, best.error),
        torch.where(better, torch.full_like(best.steps, number), best.steps),
    )
