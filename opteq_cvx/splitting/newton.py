"""Proximal augmented Lagrangian with semismooth Newton steps: finishes what Douglas–Rachford approaches slowly.

For min ½xᵀPx + qᵀx + g(Kx + b) with multipliers y and the metric R, each outer step minimizes over x
    φ(x) = ½xᵀPx + qᵀx + ½σ‖x − x̂‖² + e(Kx + b + y/R),   e the Moreau envelope of g in R,
and sets y⁺ = R(v − w), x̂⁺ = x, with v = Kx + b + y/R, w = prox_{g/R}(v). R grows, or σ falls, where its term is the
larger part of what the optimality conditions still lack, so that steps grow toward a solution far away; the further
that is, the smaller are the y that rounding has to leave, and R falls again (see `penalty`).
∇φ = Px + q + Kᵀy⁺ + σ(x − x̂), and H = P + σ + KᵀR(I − D)K with D = ∂w/∂v is a generalized Hessian, so every atom with a
differentiable prox takes part.
Sources: Rockafellar, Augmented Lagrangians and applications of the proximal point algorithm, 1976; Li, Sun, Toh,
A highly efficient semismooth Newton augmented Lagrangian method, 2018; Hermans, Themelis, Patrinos, QPALM, 2022.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opteq_cvx.splitting import blocks as proxes
from opteq_cvx.splitting import infeasibility
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.jacobians import jacobians
from opteq_cvx.splitting.line_search import search
from opteq_cvx.splitting.matrices import Matrices
from opteq_cvx.splitting.penalty import GROW, Penalty
from opteq_cvx.splitting.sizes import WORTHLESS, cancelled, most, top

INNER = 0.1  # the gradient of φ is made so much smaller than the primal residual before multipliers move
SHRINK, FASTER = 0.1, 1e-4  # σ falls by these factors at least and at most, where it is what holds x back
LEAST = 1e-20  # and to this part of it
FALL = 0.25  # R grows where an outer step reduces the primal residual by less (see `penalty`)
OFTEN, RARELY = 10, 5  # the first outer steps are looked at for rays, then every so many: it may cost more than a step
FEASIBLE = 1e-4  # primal residual up to which a falling ray means that the program is unbounded
Prox = Callable[[Tensor], Tensor]
Residuals = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(x, w, y) → relative primal, dual and gap residuals (B,)."""


WORK, FIRST = 4e9, 40  # flops that a step of the batch may cost, in the first calls, which allow so many steps


def affordable(flops: float, steps: int) -> bool:
    """Whether Newton steps of so many flops for the whole batch pay; more where more steps are allowed.

    A splitting that needs its Newton steps late in a solve has shown that it gets nowhere without them.
    """
    return flops <= WORK * max(1.0, steps / FIRST) ** 2


@dataclass(frozen=True, slots=True)
class Program:
    """min ½xᵀPx + qᵀx + g(Kx + b): g as blocks with their data, P and K, q (1|B, n), b (1|B, m)."""

    blocks: Sequence[Block]
    matrices: Matrices
    q: Tensor
    b: Tensor
    data: Sequence[Tensor]


@dataclass(frozen=True, slots=True)
class Finish:
    """The best point found: x (B, n), w and y (B, m), its error and the steps made before it was left, both (B,).

    `metric` (B, m) is the R in which w is the prox of w + y/R: in another one rounding may leave less of it.

    `infeasible` and `unbounded` (B,) are certified from the last outer steps, which tend to the rays that prove it.
    """

    x: Tensor
    w: Tensor
    y: Tensor
    error: Tensor
    steps: Tensor
    infeasible: Tensor
    unbounded: Tensor
    metric: Tensor


@torch.no_grad()
def finish(
    program: Program,
    sigma: Tensor,
    metric: Tensor,
    start: tuple[Tensor, Tensor],
    residuals: Residuals,
    *,
    tolerance: float,
    steps: int,
) -> Finish:
    """Newton steps from `start` = (x, y) until the error of each sample is below `tolerance`, at most `steps`."""
    parts, matrices, q, b, rest = program.blocks, program.matrices, program.q, program.b, program.data
    share = cancelled(q.dtype)
    certain = infeasibility.certainty(tolerance, q.dtype)
    x, y = start[0], _sound(program, metric, *start, residuals)
    center, before = x, x.new_full((x.shape[0],), torch.inf)
    penalty = Penalty.of(parts, metric, matrices, b, tolerance)
    kx, px, ones = matrices.image(x), matrices.curved(x), torch.ones_like(before)
    ends = most([e.sum(1).abs() for e in (share * x * px, share * x * q, x * (px + q), y * kx)])
    growth = penalty.ceiling(penalty.terms(x, y, metric), ones, y, kx, ends).clamp_max(1.0)
    pull = torch.ones_like(before)[:, None]
    never, looks = torch.zeros_like(before, dtype=torch.bool), 0
    best = Finish(
        x, torch.zeros_like(y), y, before, torch.zeros_like(before, dtype=torch.int64), never, never, metric + 0.0 * y
    )
    for step in range(1, steps + 1):
        r, weak = metric * growth, sigma * pull
        prox = proxes.bind(parts, y.shape[1], 1.0 / r, rest, None)
        v = matrices.image(x) + b + y / r
        w = prox(v)
        moved = r * (v - w)
        primal, dual, gap = residuals(x, w, moved)
        error = torch.maximum(torch.maximum(primal, dual), gap).nan_to_num(torch.inf)
        best = _better(best, (x, w, moved, r), error, step, tolerance)
        over = (best.error <= tolerance) | best.infeasible | best.unbounded | error.isinf()  # or beyond recovery
        if bool(over.all()) or step == steps:
            break
        px, ky = matrices.curved(x), matrices.back(moved)
        gradient = px + q + ky + weak * (x - center)
        size = most([share * top(px), share * top(q.expand_as(x)), top(ky)])
        terms = penalty.terms(x, y, r)
        noise = penalty.noise(terms, r)
        done = top(gradient) <= torch.maximum(size * (INNER * primal).clamp_min(0.3 * tolerance), noise)
        ends = most([e.sum(1).abs() for e in (share * x * px, share * x * q, x * (px + q), moved * (w - b))])
        left = torch.maximum(ends * (INNER * gap).clamp_min(0.3 * tolerance), noise * x.abs().sum(1))
        done = done & ((x * gradient).sum(1).abs() <= left)
        by_center = (x * weak * (x - center)).sum(1).abs()  # the gap is what these two leave
        by_rows = (moved * (v - y / r - w)).sum(1).abs()
        short, loose = torch.maximum(primal, gap) > tolerance, torch.maximum(dual, gap) > tolerance
        slow = done & (primal > FALL * before) & short & ((by_rows >= by_center) | (primal >= dual))
        far = done & loose & ((by_center >= by_rows) | (dual >= primal))
        before = torch.where(done, primal, before)
        fresh = done & ~over
        looks += int(fresh.any())
        if bool(fresh.any()) and (looks <= OFTEN or looks % RARELY == 0):
            drift = matrices.moved(q, b, x - center, moved - y)
            ray = infeasibility.judge(parts, rest, w, moved, x - center, moved - y, drift, certain)
            best = replace(
                best,
                infeasible=best.infeasible | (fresh & ray.infeasible),
                unbounded=best.unbounded | (fresh & ray.unbounded & (primal <= FEASIBLE)),
            )
        way = (top(x - center) / top(x).clamp_min(torch.finfo(x.dtype).tiny)).clamp(FASTER, SHRINK)
        y, center = torch.where(done[:, None], moved, y), torch.where(done[:, None], x, center)
        pull = torch.where(far[:, None], way[:, None] * pull, pull).clamp_min(LEAST)
        ceiling = penalty.ceiling(terms, size, moved, w - b, ends)
        grown = torch.minimum(torch.where(slow[:, None], growth * GROW, growth), ceiling)
        growth = torch.where(done[:, None], grown, growth)
        if bool(done.all()):
            continue
        direction = -matrices.newton(weak, r, jacobians(parts, rest, 1.0 / r, v), gradient)
        ahead = matrices.image(direction)
        flat, bend = (
            (gradient * direction).sum(1) - (moved * ahead).sum(1),
            ((matrices.curved(direction) + weak * direction) * direction).sum(1),
        )

        def along(
            t: Tensor, prox: Prox = prox, r: Tensor = r, line: tuple[Tensor, ...] = (v, ahead, flat, bend)
        ) -> Tensor:
            v, ahead, flat, bend = line
            inner = v + t[:, None] * ahead
            return flat + t * bend + (r * (inner - prox(inner)) * ahead).sum(1)

        blur = torch.finfo(r.dtype).eps * (r * terms * ahead.abs()).sum(1)
        t = search(along, (gradient * direction).sum(1), blur, done | over)
        x = torch.where(done[:, None], x, x + t[:, None] * direction)
    return best


def _sound(program: Program, metric: Tensor, x: Tensor, y: Tensor, residuals: Residuals) -> Tensor:
    """The multipliers y; 0 for samples where Kᵀy is nowhere near −(Px + q), as outer steps take long to bring back what
    steps in a wrong metric have left."""
    v = program.matrices.image(x) + program.b + y / metric
    w = proxes.bind(program.blocks, y.shape[1], 1.0 / metric, program.data, None)(v)
    _, dual, gap = residuals(x, w, metric * (v - w))
    return torch.where((torch.maximum(dual, gap) < WORTHLESS)[:, None], y, 0.0)


def _better(best: Finish, point: tuple[Tensor, ...], error: Tensor, step: int, tolerance: float) -> Finish:
    """The better of two points, sample by sample; samples that are done keep theirs."""
    worthless = torch.minimum(error, best.error) >= WORTHLESS
    take = ((error < best.error) | worthless) & (best.error > tolerance) & error.isfinite()
    pick, (x, w, y, metric) = take[:, None], point
    return replace(
        best,
        x=torch.where(pick, x, best.x),
        w=torch.where(pick, w, best.w),
        y=torch.where(pick, y, best.y),
        metric=torch.where(pick, metric, best.metric),
        error=torch.where(take, error, best.error),
        steps=torch.where(best.error > tolerance, torch.full_like(best.steps, step), best.steps),
    )
