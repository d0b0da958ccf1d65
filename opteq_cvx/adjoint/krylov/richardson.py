"""Second-order Richardson iterations for J = D M with one certified M for the batch: no inner products, few operations.

s = D (v + M s), w = v + M s by s_{k+1} = s_k + a (D(v + M s_k) − s_k) + b (s_k − s_{k−1}), a and b as in
`iterate.heavy_ball`: what conjugate gradients gain by their inner products on spectra that are known to be short they
lose by the time that these take. The steps are in float32, on residuals in the dtype of v.

Sources: Golub and Varga, *Chebyshev semi-iterative methods, successive overrelaxation iterative methods, and second
order Richardson iterative methods* (1961); iterative refinement: Higham, *Accuracy and Stability of Numerical
Algorithms* (2002), chapter 12.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.krylov.cg import CLOSER, REACH, WIDE, coarse_pays
from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System, norms, plausible, relative
from opteq_cvx.descent import SharedSteps, Steps
from opteq_cvx.iterate.heavy_ball import Tuner, look
from opteq_cvx.splitting.linearization import SymmetricLinearization

SLOWEST = 0.95  # no certified rate beyond this
ROUNDS = 3  # how often float32 is asked
GUESS = 0.85  # of the certified rate: on a face that is known, too much costs less than too little
LONGEST, LONGER = 14, 6  # steps to the first look at the residuals, and between two looks, at most
MOST = 120  # steps of one round


@dataclass(frozen=True, slots=True, kw_only=True)
class Richardson(LinearSolver):
    """Solve (I − M D) w = v or (I − D M) w = v where `suits`; samples that it leaves are reported as not converged."""

    @override
    def solve(self, system: System, v: Tensor, *, tolerance: Tensor | float, max_steps: int) -> Linear:
        form, rate = system.jacobian, system.rate
        assert isinstance(form, SymmetricLinearization)
        assert form.matrix is not None
        assert form.diagonal is not None
        assert rate is not None
        m, d = form.matrix[0], form.diagonal
        right = v if system.transposed else v @ m
        size = norms(right)
        goal = tolerance * size
        low, low_d = m.float(), d.float()
        tuner, taken = Tuner(rate, GUESS), 0
        s, g, r, gap = None, right, d * right, size
        for _ in range(ROUNDS):
            scale = gap.clamp_min(torch.finfo(v.dtype).tiny)
            ask = (goal / scale).mul_(CLOSER).clamp_min_(REACH).float()
            small = (r / scale[:, None]).float()
            map_ = map_of(low, low_d, form.projector, small)
            found, steps = sweep(map_, small, ask, tuner, min(max_steps - taken, MOST))
            taken += steps
            move = found.to(v.dtype).mul_(scale[:, None])
            s = move if s is None else s.add_(move)
            g = torch.addmm(right, s, m)
            r = (g * d).sub_(s)
            gap = norms(r)
            done = gap <= goal
            if bool(done.all()) or taken >= max_steps:
                break
        w = g if system.transposed else torch.addcmul(v, d, g)
        counts = torch.where(size > 0, taken, 0)
        return Linear(w, relative(gap, size), counts, done.logical_and_(plausible(w, v)))


def suits(system: System, v: Tensor, tolerance: Tensor | float) -> bool:
    """Whether the system has one certified M and a diagonal D, and steps in float32 pay: v in float32 where that
    reaches the tolerance, or in float64 where they save more than the conversion costs."""
    form = system.jacobian
    if system.rate is None or system.rate > SLOWEST or not isinstance(form, SymmetricLinearization):
        return False
    if form.diagonal is None or v.dtype is not torch.float32:
        return form.diagonal is not None and coarse_pays(form, v, tolerance)
    shared = form.matrix is not None and form.matrix.shape[0] == 1
    return shared and v.numel() >= WIDE and bool(torch.as_tensor(tolerance >= REACH / CLOSER).all())


def map_of(m: Tensor, d: Tensor, projector: bool, r: Tensor) -> Steps:
    """s ↦ D M s + r; with a projector D, in whose range r lies, D is the prox, which makes a step one product."""
    if projector:
        return SharedSteps(m, r, lambda a: lambda s: s.mul_(d))
    return Steps(lambda s: (s @ m).mul_(d).add_(r), lambda a: lambda s: s)


def sweep(map_: Steps, r: Tensor, ask: Tensor, tuner: Tuner, max_steps: int) -> tuple[Tensor, int]:
    """s (B, d) with a residual of at most `ask` (B,) per row, or the last one, from s = r, and the steps taken."""
    s, before, taken = r.clone(), torch.zeros_like(r), 1
    pause = pace(tuner.left(1.0 / float(ask.min())), LONGEST)
    step, tuner.before = map_.heavy(tuner.a, tuner.b), None
    while True:
        pause = min(pause, max(max_steps - taken, 1))
        for _ in range(pause - 1):
            s, before = step(s, before), s
        image, after = look(map_, s, before, tuner)
        taken += pause
        excess = norms(image - s).div_(ask)
        most = float(excess.max())
        if not most > 1.0 or taken >= max_steps:
            return image, taken
        s, before = after, s
        if tuner.observe(excess, pause):
            step = map_.heavy(tuner.a, tuner.b)
        pause = pace(tuner.left(most), LONGER)


def pace(wanted: float, longest: int) -> int:
    """Steps to the next look at the residuals."""
    return min(max(math.ceil(wanted), 1), longest)
