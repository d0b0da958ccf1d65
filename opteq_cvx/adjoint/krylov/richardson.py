"""Second-order Richardson iterations for J = D M with one certified M for the batch: no inner products, few operations.

s = D (v + M s), w = v + M s by s_{k+1} = s_k + a (D(v + M s_k) − s_k) + b (s_k − s_{k−1}), a and b as in
`iterate.heavy_ball`: what conjugate gradients gain by their inner products on spectra that are known to be short they
lose by the time that these take. The steps are in float32, on residuals in float64.

Sources: Golub and Varga, *Chebyshev semi-iterative methods, successive overrelaxation iterative methods, and second
order Richardson iterative methods* (1961); iterative refinement: Higham, *Accuracy and Stability of Numerical
Algorithms* (2002), chapter 12.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System, norms, plausible, relative
from opteq_cvx.descent import Heavy, moved
from opteq_cvx.iterate.heavy_ball import Tuner
from opteq_cvx.splitting.linearization import SymmetricLinearization

SLOWEST = 0.95  # no certified rate beyond this
WIDE = 4096  # numbers of unknowns (B·d) from which steps in float32 pay
FINE = 1e-5  # tolerances from which they do
REACH, ROUNDS = 3e-6, 3  # what float32 is asked for, and how often
CLOSER = 0.5  # of the goal is asked for in float32, whose residuals are not exact
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
        low = Steps(m.float(), d.float(), form.projector)
        tuner, taken = Tuner(rate, GUESS), 0
        s, g, r, gap = None, right, d * right, size
        for _ in range(ROUNDS):
            scale = gap.clamp_min(torch.finfo(v.dtype).tiny)
            ask = (goal / scale).mul_(CLOSER).clamp_min_(REACH).float()
            found, steps = low.run((r / scale[:, None]).float(), ask, tuner, min(max_steps - taken, MOST))
            taken += steps
            move = found.double().mul_(scale[:, None])
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
    """Whether the system has one certified M and a diagonal D, and steps in float32 save more than they cost."""
    form = system.jacobian
    if system.rate is None or system.rate > SLOWEST or v.numel() < WIDE or v.dtype is not torch.float64:
        return False
    if not isinstance(form, SymmetricLinearization) or form.matrix is None or form.diagonal is None:
        return False
    return form.matrix.shape[0] == 1 and bool(torch.as_tensor(tolerance <= FINE).all())


class Steps:
    """s⁺ of s = D M s + r, r in the range of D where D is a projector."""

    def __init__(self, m: Tensor, d: Tensor, projector: bool) -> None:
        self.m, self.d, self.projector = m, d, projector

    def run(self, r: Tensor, ask: Tensor, tuner: Tuner, max_steps: int) -> tuple[Tensor, int]:
        """s (B, d) with a residual of at most `ask` (B,) per row, or the last one, and the steps taken."""
        s, before, taken = r * tuner.a, torch.zeros_like(r), 1
        pause = min(pace(1.0 / float(ask.min()), tuner), LONGEST, max(max_steps - 1, 1))
        step = self.heavy(r, tuner)
        tuner.before = None
        while True:
            for _ in range(pause - 1):
                s, before = step(s, before), s
            image = self.image(s, r)
            taken += pause
            excess = norms(image - s).div_(ask)
            most = float(excess.max())
            if not most > 1.0 or taken >= max_steps:
                return image, taken
            s, before = moved(s, before, image, tuner.a, tuner.b), s
            if tuner.observe(excess, pause):
                step = self.heavy(r, tuner)
            pause = min(pace(most, tuner), LONGER, max(max_steps - taken, 1))

    def image(self, s: Tensor, r: Tensor) -> Tensor:
        """D M s + r."""
        if self.projector:
            return torch.addmm(r, s, self.m).mul_(self.d)
        return (s @ self.m).mul_(self.d).add_(r)

    def heavy(self, r: Tensor, tuner: Tuner) -> Heavy:
        """The step with the present a and b; behind a projector it is one product with (1 + b − a) I + aM."""
        a, b, d = tuner.a, tuner.b, self.d
        if not self.projector:
            return lambda s, before: moved(s, before, self.image(s, r), a, b)
        m, c = self.m * a, r * a
        m.diagonal().add_(1.0 + b - a)
        return lambda s, before: torch.add(c, before, alpha=-b, out=before).addmm_(s, m).mul_(d)


def pace(excess: float, tuner: Tuner) -> int:
    """Steps that should divide the residual by `excess`; at least one."""
    if not 1.0 < excess < math.inf:
        return 1
    return max(math.ceil(2.0 * math.log(excess) / -math.log(max(tuner.b, 1e-4))), 1)
