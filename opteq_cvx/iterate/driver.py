"""The loop shared by every iteration: residual checks, frozen samples, compaction, the best iterate.

A rule says how z_{k+1} follows from z_k and T(z_k); the driver does the rest. One step costs one T. At a check the
residual ‖z_k − T(z_k)‖ comes from the pair the rule needs anyway, so a check costs a few reductions and one copy.
"""

from dataclasses import replace

import torch
from torch import Tensor

from opteq_cvx.iterate.contract import Iterate, Progress, Restrict, Stop
from opteq_cvx.iterate.replay import block
from opteq_cvx.iterate.rule import Rule
from opteq_cvx.iterate.watch import WATCH

BOUND = 0.4  # a state of norm above this power of the dtype's largest number has left every bounded set
ROUNDING = 4.0  # a residual below this many units of rounding, relative to ‖z‖, cannot be asked for
SHARE = 0.75  # rows are compacted when at most this share of them is still iterating
WORTHLESS = 0.5  # relative errors from which on the latest point is kept, not the first; `splitting.sizes` has it, too
LOOK = 10  # every so many checks the norms are compared with their bound even where all seems well
SMALL = 8  # never compact fewer rows than this: the gather costs more than it saves


@torch.no_grad()
def drive(
    rule: Rule,
    restrict: Restrict,
    z0: Tensor,
    stop: Stop,
    *,
    history: bool = False,
    progress: Progress | None = None,
    graphs: bool = False,
) -> Iterate:
    """Iterate `rule` from z0 (B, d) until every sample is done or `stop.max_steps` evaluations of T were made.

    The first check comes after one evaluation, so that a start at the solution costs one; then every
    `stop.check_every`. A sample that is done keeps the state and the residual of its best check, whatever its row
    does afterwards. A sample whose iterates are not finite, or left every bounded set, is frozen as not finite.
    `graphs` records the steps between checks, where device and rule can.
    """
    board = Board(z0, stop, history=history, progress=progress)
    steps = block(rule, restrict(None), z0, graphs=graphs)
    z, step, pause = z0, 0, 1
    while True:
        z, image = steps(z, pause)
        step += pause
        live = board.check(z, image, step)
        if not live or step >= stop.max_steps:
            return board.result()
        rule.observe(board.seen, pause)
        pause = min(stop.check_every, stop.max_steps - step)
        z, image = board.revive(z, image)
        keep = board.compact()
        if keep is not None:
            z, image = z[keep], image[keep]
            rule.take(keep)
            steps = block(rule, restrict(board.rows), z, graphs=graphs)
        z = rule.advance(z, image)


class Board:
    """What is known of each sample: its best state, residual, steps and flags.

    The tensors `best` … `alive` have one row per sample still in the loop (all of them until the first compaction);
    `total` receives the rows that leave.
    """

    def __init__(self, z0: Tensor, stop: Stop, *, history: bool, progress: Progress | None) -> None:
        batch = z0.shape[0]
        floor = ROUNDING * torch.finfo(z0.dtype).eps
        self.threshold: Tensor | float = max(stop.tolerance, floor)
        if stop.margin is not None:
            self.threshold = (stop.tolerance * stop.margin.detach().to(z0)).clamp_min(floor)
        self.limit = torch.finfo(z0.dtype).max ** BOUND
        self.best = z0.detach().clone(memory_format=torch.contiguous_format)
        self.residual = z0.new_full((batch,), torch.inf)
        self.steps = torch.zeros(batch, dtype=torch.int64, device=z0.device)
        self.finite = torch.ones(batch, dtype=torch.bool, device=z0.device)
        self.alive = torch.ones_like(self.finite)
        self.rows: Tensor | None = None
        self.total: Iterate | None = None
        self.gap = torch.empty_like(self.best)
        self.seen = self.residual  # the residuals of the last check
        self.gauge = stop.gauge
        self.measure = None if stop.gauge is None else stop.gauge(None)
        self.flag = Flag(z0.device)
        self.step, self.checks = 0, 0
        self.whole = not self.flag.remote  # whether every row is alive, where that is known without a wait
        self.sparse, self.lost = False, False  # whether to compact, and whether some rows are not finite
        self.last = self.residual.clone() if history or progress is not None else None
        self.history: list[Tensor] | None = [] if history else None
        self.progress = progress
        self.watch = WATCH.get()
        self.samples = batch

    def check(self, z: Tensor, image: Tensor, step: int) -> bool:
        """Update from the pair (z, T(z)); return whether a sample is still alive."""
        self.step = step
        norm = torch.linalg.vector_norm(z, dim=1).clamp_min_(1.0)
        if self.measure is not None:
            relative = self.measure(z, image)
        else:
            relative = torch.linalg.vector_norm(torch.sub(z, image, out=self.gap), dim=1).div_(norm)
        above, better = relative > self.threshold, relative < self.residual  # False for NaN
        if self.measure is not None:  # a relative error near 1 tells nothing of which point is better
            better = torch.logical_or(better, torch.minimum(relative, self.residual) >= WORTHLESS)
        self.checks += 1
        self.seen = relative
        if self.watch is not None:
            self.watch(step, int(torch.count_nonzero(torch.logical_and(above, self.alive))), self.samples, relative)
        if self.whole and self.checks % LOOK and bool(torch.logical_and(above, better).all()):
            # the usual case on the CPU: every sample improved, none is done
            self.best.copy_(z)
            self.residual = relative
            if self.last is not None:
                self.report(relative)
            return True
        return self.settle(z, norm, relative, above, better)

    def settle(self, z: Tensor, norm: Tensor, relative: Tensor, above: Tensor, better: Tensor) -> bool:
        """The general case of a check: some samples are done, or did not improve, or are lost."""
        alive = sound = self.alive
        fine = torch.logical_and(relative < torch.inf, norm < self.limit)
        if self.flag.remote or not bool(fine.all()):
            sound = torch.logical_and(alive, fine)
            self.finite.logical_and_(torch.logical_or(fine, alive.logical_not()))
            self.lost = True
        better.logical_and_(sound)
        torch.where(better[:, None], z, self.best, out=self.best)
        self.residual = torch.where(better, relative, self.residual)
        self.steps.masked_fill_(alive, self.step)
        self.alive = torch.logical_and(sound, above)
        if self.last is not None:
            self.report(torch.where(alive, relative, self.residual))
        if self.flag.remote:
            return self.flag.read(self.alive)
        live, rows = int(torch.count_nonzero(self.alive)), z.shape[0]
        self.whole = live == rows
        self.sparse = live <= SHARE * rows and rows > SMALL
        return live > 0

    def report(self, relative: Tensor) -> None:
        """Append to the history, call the observer."""
        assert self.last is not None
        self.last = relative.clone() if self.rows is None else self.last.index_copy(0, self.rows, relative)
        if self.history is not None:
            self.history.append(self.last)
        if self.progress is not None:
            self.progress(self.step, self.last)

    def revive(self, z: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Put rows that are not finite back to their best state, so that no later operation sees infinities."""
        if not self.lost:
            return z, image
        lost = ~self.finite[:, None]
        return torch.where(lost, self.best, z), torch.where(lost, self.best, image)

    def compact(self) -> Tensor | None:
        """Move finished rows out (CPU only); return the index of those kept, None where nothing moved."""
        if not self.sparse:
            return None
        keep = self.alive.nonzero().squeeze(1)
        self.store()
        self.rows = keep if self.rows is None else self.rows[keep]
        self.best, self.gap = self.best[keep], self.gap[: keep.shape[0]]
        self.residual, self.steps = self.residual[keep], self.steps[keep]
        self.finite, self.alive = self.finite[keep], self.alive[keep]
        if self.gauge is not None:
            self.measure = self.gauge(self.rows)
        if isinstance(self.threshold, Tensor) and self.threshold.shape[0] > 1:
            self.threshold = self.threshold[keep]
        self.whole, self.sparse = True, False
        self.lost = False  # a lost sample is not alive, so it has left
        return keep

    def store(self) -> None:
        """Write the present rows into the totals."""
        done = torch.logical_and(self.finite, self.alive.logical_not())
        if self.total is None or self.rows is None:
            self.total = Iterate(self.best, self.residual, self.steps, done, self.finite)
            return
        rows, total = self.rows, self.total
        total.z.index_copy_(0, rows, self.best)
        total.residual.index_copy_(0, rows, self.residual)
        total.steps.index_copy_(0, rows, self.steps)
        total.converged.index_copy_(0, rows, done)
        total.finite.index_copy_(0, rows, self.finite)

    def result(self) -> Iterate:
        """All samples, in the order of z0."""
        self.steps.masked_fill_(self.alive, self.step)
        self.store()
        assert self.total is not None
        if self.history is None:
            return self.total
        return replace(self.total, history=torch.stack(self.history))


class Flag:
    """Whether any sample is alive. On a CUDA device the answer is that of the check before, so that the host never
    waits for work it has just queued; the steps this adds change no result, because finished samples are frozen."""

    def __init__(self, device: torch.device) -> None:
        self.remote = device.type != "cpu"
        self.lagged = device.type == "cuda"
        self.slots = [torch.ones((), dtype=torch.bool, pin_memory=True) for _ in range(2)] if self.lagged else []
        self.events = [torch.cuda.Event() for _ in self.slots]
        self.count = 0

    def read(self, alive: Tensor) -> bool:
        """Read the flag, and on CUDA queue the copy that the next check will read."""
        if not self.lagged:
            return bool(alive.any())
        now, before = self.count % 2, (self.count + 1) % 2
        self.slots[now].copy_(alive.any(), non_blocking=True)
        self.events[now].record()
        self.count += 1
        if self.count == 1:
            return True
        self.events[before].synchronize()
        return bool(self.slots[before])
