"""The heavy ball for certified proximal-gradient steps: longer steps and momentum, tuned to the contraction observed.

z_{k+1} = prox_{aγf}(z_k − aγ∇g(z_k) + b(z_k − z_{k−1})), a = 4/(1 + q)², b = ((1 − q)/(1 + q))², q = √(1 − ρ): on the
face that the iterates have reached, where plain steps converge at the rate ρ, these converge at √b, the best that any
method of two terms can do. ρ is read from the residuals at every check; one pair (a, b) serves the batch, so that a
step stays one product of matrices and a prox.

Sources: Polyak, *Some methods of speeding up the convergence of iteration methods* (1964); with a prox, iPiano: Ochs,
Chen, Brox, Pock, SIAM J. Imaging Sciences (2014), theorem 4.8: it converges from everywhere where a < 2(1 − b), which
is ρ < 3/4. Above, a batch whose residual grew takes plain steps until the next check, and smaller ρ later.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from opteq_cvx.descent import Map, Repeated, Steps, moved
from opteq_cvx.iterate.contract import Iterate, Progress, Stop
from opteq_cvx.iterate.driver import Board
from opteq_cvx.maps.peek import known_finite

SAFE = 0.74  # the ρ up to which the method converges from everywhere
GUESS = 0.8  # of the certified rate: what is expected on a face, before anything was seen
CAUTION = 3.0  # by which 1 − ρ grows, for good, where the residual grew
LEAST, MOST = 3, 8  # steps from check to check
OFTEN = 3  # at most so many, and as few as one, where a step costs far more than a check
SLOWEST = 0.999  # a rate seen above this counts as this
SLACK = 1.02  # a rate above √b by less than this says nothing about ρ
TRIAL, TRIES = 20, 6  # steps before Newton's are tried, then at every doubling; so many of them at once
PATIENCE = 2  # of them, until one has to help
HELP = 0.3  # they count where the residual fell by this factor
REACH = 3e-6  # the relative residual down to which steps in float32 are as good as others
MOST_COARSE = 100  # steps in float32 at most


class Tuner:
    """ρ, and what follows from it: a, b. `cap` is the certified rate of plain steps, beyond which ρ never goes."""

    def __init__(self, cap: float, guess: float = GUESS) -> None:
        self.limit = min(max(cap, 0.0), 1.0 - 1e-6)
        self.rho = self.now = guess * self.limit
        self.before: float | None = None
        self.rate = 0.1  # per step, last seen

    @property
    def a(self) -> float:
        """The length of the step, in units of γ."""
        return 4.0 / (1.0 + math.sqrt(1.0 - self.now)) ** 2

    @property
    def b(self) -> float:
        """The momentum."""
        q = math.sqrt(1.0 - self.now)
        return ((1.0 - q) / (1.0 + q)) ** 2

    def observe(self, residual: Tensor, steps: int) -> bool:
        """Look at the relative residuals (b,) that `steps` steps led to; whether (a, b) changed.

        Their norm over the batch falls at the rate of the slowest mode λ of the slowest sample, a root r of
        r² − (1 + b − a + aλ) r + b = 0 in what momentum makes of it.
        """
        size = float(torch.linalg.vector_norm(residual))
        if not math.isfinite(size):  # leave out the samples that are lost
            size = float(torch.linalg.vector_norm(torch.where(residual < torch.inf, residual, 0.0)))
        before, self.before, now = self.before, size, self.now
        if before is None or before <= 0.0 or not math.isfinite(size):
            return False
        rate = (size / before) ** (1.0 / steps)
        self.rate = rate
        if rate >= 1.0:
            self.limit = min(self.limit, max(SAFE, 1.0 - CAUTION * (1.0 - self.rho)))
            self.rho, self.now = min(self.rho, self.limit), 0.0
            return self.now != now
        if rate > SLACK * math.sqrt(self.b):
            slow = (rate + self.b / rate - (1.0 + self.b - self.a)) / self.a
            self.rho = min(self.limit, max(self.rho, slow))
        self.now = self.rho
        return self.now != now

    def pause(self, excess: Tensor, *, costly: bool = False) -> int:
        """Steps until half the samples should meet their thresholds, then all; `excess` (b,) is residual/threshold."""
        wanted, (least, most) = float(excess.median()), (1, OFTEN) if costly else (LEAST, MOST)
        return min(max(math.ceil(self.left(wanted if wanted > 1.0 else float(excess.max()))), least), most)

    def left(self, excess: float) -> float:
        """Steps that will divide the residual by `excess`, as things stand."""
        if not 1.0 < excess < math.inf:
            return 0.0
        rate = max(math.sqrt(self.b), self.rate)
        return math.log(excess) / -math.log(min(rate, SLOWEST))


def look(map_: Steps, z: Tensor, before: Tensor, tuner: Tuner, *, begins: bool = False) -> tuple[Tensor, Tensor]:
    """T(z) and the next state, for one gradient; none where z is a start at 0."""
    image = map_.begin(z) if begins else map_.gradient(z)
    after = map_.prox(tuner.a)(moved(z, before, image, tuner.a, tuner.b))
    return map_.prox(1.0)(image), after


@torch.no_grad()
def heavy_ball(
    restrict: Callable[[Tensor | None], Map],
    z0: Tensor,
    stop: Stop,
    *,
    coarse: Steps | None = None,
    history: bool = False,
    progress: Progress | None = None,
    fused: bool = False,
) -> Iterate:
    """Iterate from z0 (B, d) until every sample is done; maps that `restrict` gives are `Steps`.

    With `coarse`, the same map in float32, the first steps are taken by it, as far as float32 reaches. With `history`
    the checks keep the distance that `stop` says, and there are no Newton steps between them; otherwise they come when
    something is expected of them. With `fused` the steps between checks are one kernel where the map has one.
    """
    tuner = Tuner(stop.rate)
    if coarse is None:
        z, before, steps = z0.clone(), z0.clone(), 0
    else:
        z, before, steps = early(coarse, z0, stop, tuner, fused=fused)
        stop = replace(stop, max_steps=stop.max_steps - steps)
    first = 1 if coarse is None else LEAST
    done = drive(restrict, z, before, stop, tuner, first=first, history=history, progress=progress, fused=fused)
    return replace(done, steps=done.steps + steps) if steps else done


def early(map_: Steps, z0: Tensor, stop: Stop, tuner: Tuner, *, fused: bool = False) -> tuple[Tensor, Tensor, int]:
    """Steps in float32 until half the samples are within its reach: the last two states in the dtype of z0, and steps.

    Samples that are not finite in float32 start again at z0.
    """
    z = z0.float()
    before, steps, pause = z.clone(), 0, stop.check_every
    many = map_.repeated(tuner.a, tuner.b, fused=fused)
    if pause < stop.max_steps:
        z, steps, pause = look(map_, z, before.clone(), tuner, begins=True)[1], 1, pause - 1
    while steps + pause < stop.max_steps and steps < MOST_COARSE:
        z, before = many(z, before, pause - 1)
        image, after = look(map_, z, before, tuner)
        steps += pause
        residual = torch.linalg.vector_norm(image.sub_(z), dim=1).div_(
            torch.linalg.vector_norm(z, dim=1).clamp_min_(1.0)
        )
        z, before = after, z
        if bool(residual.median() <= REACH):
            break
        if tuner.observe(residual, pause):
            many = map_.repeated(tuner.a, tuner.b, fused=fused)
        pause = tuner.pause(residual / REACH, costly=map_.costly)
    tuner.before = None
    if known_finite(z) and known_finite(before):
        return z.to(z0.dtype), before.to(z0.dtype), steps
    fine = (torch.isfinite(z) & torch.isfinite(before)).all(dim=1, keepdim=True)
    return torch.where(fine, z.to(z0.dtype), z0), torch.where(fine, before.to(z0.dtype), z0), steps


def drive(
    restrict: Callable[[Tensor | None], Map],
    z: Tensor,
    before: Tensor,
    stop: Stop,
    tuner: Tuner,
    *,
    first: int,
    history: bool,
    progress: Progress | None,
    fused: bool = False,
) -> Iterate:
    """The loop in the dtype of z, with the checks of `driver.drive`; `before` may be overwritten."""
    board = Board(z, stop, history=history, progress=progress)
    map_ = _descent(restrict(None))
    many: Repeated | None = None
    taken, pause, trial = 0, min(first, stop.max_steps), TRIAL
    while True:
        if pause > 1:
            many = map_.repeated(tuner.a, tuner.b, fused=fused) if many is None else many
            z, before = many(z, before, pause - 1)
        image, after = look(map_, z, before, tuner, begins=taken == 0 and pause == 1)
        taken += pause
        if not board.check(z, image, taken) or taken >= stop.max_steps:
            return board.result()
        if tuner.observe(board.seen, pause):
            many = None
        pause = stop.check_every if history else tuner.pause(board.seen / board.threshold, costly=map_.costly)
        z, after = board.revive(z, after)
        keep = board.compact()
        if keep is not None:
            z, after = z[keep], after[keep]
            map_, many = _descent(restrict(board.rows)), None
            tuner.before = None
        if map_.newton is not None and taken >= trial and not history:
            budget = tuner.left(float((board.seen / board.threshold).max()))
            moves = leap(map_, board, z, after, budget, taken, stop.max_steps)
            if moves is None:
                return board.result()
            evaluations, after, z = moves
            taken += evaluations
            trial = 2 * taken
            if evaluations:
                tuner.before = None
            if taken >= stop.max_steps:
                return board.result()
        z, before = after, z
        pause = min(pause, stop.max_steps - taken)


def leap(
    map_: Steps, board: Board, z: Tensor, after: Tensor, budget: float, taken: int, max_steps: int
) -> tuple[int, Tensor, Tensor] | None:
    """Newton steps from z: evaluations of T, and the pair (next state, state) to go on from; None where all are solved.

    They count where ‖z − T(z)‖ fell by the factor HELP; other samples go on as if nothing had been tried. A Newton step
    costs two evaluations.
    """
    assert map_.newton is not None
    best, image = z, map_(z)
    gap = torch.linalg.vector_norm(best - image, dim=1)
    point, helped, tries = z, torch.zeros_like(gap, dtype=torch.bool), 0
    while tries < min(TRIES, (max_steps - taken) // 2):
        found = map_.newton(point, budget)
        if found is None:
            break
        tries += 1
        point = torch.where(torch.isfinite(found).all(dim=1, keepdim=True), found, point)
        moved = map_(point)
        size = torch.linalg.vector_norm(point - moved, dim=1)
        better = size < HELP * gap  # False for NaN
        helped, gap = helped | better, torch.where(better, size, gap)
        best, image = torch.where(better[:, None], point, best), torch.where(better[:, None], moved, image)
        if tries >= PATIENCE and not bool(better.any()):
            break
    if not tries:
        return 0, after, z
    if not board.check(best, image, taken + 2 * tries):
        return None
    return 2 * tries, torch.where(helped[:, None], image, after), torch.where(helped[:, None], image, z)


def _descent(map_: Map) -> Steps:
    assert isinstance(map_, Steps)
    return map_
