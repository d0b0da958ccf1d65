"""Conjugate gradients for J = D M (D, M symmetric, D ⪰ 0), in the semi-inner product ⟨x, D y⟩."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System, norms, plausible, relative
from opteq_cvx.iterate.driver import Flag
from opteq_cvx.splitting.linearization import Linearization, SymmetricLinearization


@dataclass(frozen=True, slots=True, kw_only=True)
class CG(LinearSolver):
    """Solve (I − M D) w = v by conjugate gradients; a J of unknown structure is taken as symmetric itself (D = I).

    With a diagonal D = S²: (I − S M S) q = S v, then w = v + M S q: one product with M per step. Otherwise in
    w itself with ⟨x, D y⟩: one M and one D per step. The other system, (I − D M) w = v, has w = v + D t with
    (I − M D) t = M v. A direction of nonpositive curvature ends a sample as not converged; so does
    a solution too large to be one.
    Source: D(I − MD) = D − DMD is symmetric positive semidefinite; Hestenes, Stiefel 1952.
    """

    @override
    def solve(self, system: System, v: Tensor, *, tolerance: Tensor | float, max_steps: int) -> Linear:
        jacobian = system.jacobian
        form = jacobian if isinstance(jacobian, SymmetricLinearization) else Assumed(jacobian)
        right = v if system.transposed else form.apply_m(v)
        if form.diagonal is None:
            t, ratio, steps, done = general(form, right, tolerance, max_steps)
        elif coarse_pays(form, right, tolerance):
            t, ratio, steps, done = refined(form, form.diagonal, right, tolerance, max_steps)
        else:
            t, ratio, steps, done = diagonal(form, form.diagonal, right, tolerance, max_steps)
        w = t.add_(right) if system.transposed else form.apply_d(t.add_(right)).add_(v)
        return Linear(w, ratio, steps, done.logical_and_(plausible(w, v)))


class Assumed(SymmetricLinearization):
    """J taken as symmetric: D = I, M = Jᵀ."""

    def __init__(self, jacobian: Linearization) -> None:
        super().__init__(apply_matrix=jacobian.rmatvec, apply_diagonal=lambda x: x)


EVERY = 2  # steps from one look at the residuals to the next
FINE, WIDE = 1e-5, 4096  # tolerances, and numbers of unknowns (B·d), from which steps in float32 pay
REACH, ROUNDS = 3e-6, 2  # what float32 is asked for, and how often
CLOSER = 0.5  # of the goal is asked for in float32, whose residuals are not exact
RESTARTS, SLOW, NOISE = 8, 0.5, 100.0  # runs in w, the least that one must gain, units of rounding that count as none
Answer = tuple[Tensor, Tensor, Tensor, Tensor]  # M D w (B, d), relative residual, steps, converged (B,)


class Tracker:
    """Step lengths of all samples, and whether one is still far from its target; read every few steps.

    A sample that reached its target stays where it is: in a singular system further steps would amplify rounding. Nor
    does a sample move, or have a reason to go on, along a direction of nonpositive curvature.
    """

    def __init__(self, rr: Tensor, tolerance: Tensor | float) -> None:
        scale = tolerance.square()[:, None] if isinstance(tolerance, Tensor) else tolerance * tolerance
        self.first, self.target = rr, rr * scale
        self.tiny = torch.finfo(rr.dtype).tiny
        self.taken, self.steps = 0, torch.zeros_like(rr, dtype=torch.int64)
        self.moves = rr > self.target  # False for NaN
        self.flag = Flag(rr.device)

    def length(self, rr: Tensor, curvature: Tensor) -> Tensor:
        """rr / curvature, and 0 for samples that do not move."""
        self.moves = (curvature > 0).logical_and_(rr > self.target)
        return torch.where(self.moves, rr / curvature, 0.0)

    def turn(self, new: Tensor, rr: Tensor, last: bool) -> Tensor | None:
        """new / rr; None where no sample has a reason to go on."""
        self.taken += 1
        if self.taken % EVERY == 1 or last:
            live = (new > self.target).logical_and_(self.moves)
            self.steps.masked_fill_(live.logical_or(self.steps == 0).logical_and_(self.first > 0), self.taken)
            if not self.flag.read(live):
                return None
        return new / rr.clamp_min(self.tiny)

    def answer(self, t: Tensor, rr: Tensor) -> Answer:
        """The tuple that `CG` expects."""
        ratio = torch.where(rr > 0, (rr / self.first).sqrt(), 0.0).squeeze(1)
        return t, ratio, self.steps.squeeze(1), (rr <= self.target).squeeze(1)


def diagonal(form: SymmetricLinearization, d: Tensor, v: Tensor, tolerance: Tensor | float, max_steps: int) -> Answer:
    """M S q with (I − S M S) q = S v, S = D^½."""
    s = d if form.projector else d.clamp_min(0.0).sqrt()
    r = s * v
    p, x = r.clone(), torch.zeros_like(r)
    product, scratch = torch.empty_like(r), torch.empty_like(r)
    rr = dot(r, r)
    state = Tracker(rr, tolerance)
    for k in range(max_steps):
        # a projector leaves p as it is: p lies in its range
        image = form.apply_m(p if form.projector else torch.mul(p, s, out=scratch), out=product)
        q = torch.addcmul(p, s, image, value=-1.0, out=scratch if image is product else None)
        a = state.length(rr, dot(p, q))
        x.addcmul_(a, p)
        r.addcmul_(a, q, value=-1.0)
        new = dot(r, r)
        b = state.turn(new, rr, k + 1 == max_steps)
        rr = new
        if b is None:
            break
        torch.addcmul(r, b, p, out=p)
    t = form.apply_m(x if form.projector else x.mul_(s))
    return state.answer(t, rr)


def coarse_pays(form: SymmetricLinearization, v: Tensor, tolerance: Tensor | float) -> bool:
    """Whether steps in float32 save more than the conversion costs."""
    shared = form.matrix is not None and form.matrix.shape[0] == 1
    return shared and v.dtype is torch.float64 and v.numel() >= WIDE and bool(torch.as_tensor(tolerance <= FINE).all())


def refined(form: SymmetricLinearization, d: Tensor, v: Tensor, tolerance: Tensor | float, max_steps: int) -> Answer:
    """As `diagonal`: in float32 as far as that reaches, again on the residual, what is left in float64.

    With w = v + t the residual of (I − MD) w = v is r = MD(v + t) − t, and the correction e solves (I − MD) e = r.
    Source: iterative refinement, Higham, *Accuracy and Stability of Numerical Algorithms* (2002), chapter 12.
    """
    assert form.matrix is not None
    d32 = d.float()
    low = SymmetricLinearization(matrix=form.matrix.float(), diagonal=d32, projector=form.projector)
    tiny = torch.finfo(v.dtype).tiny
    size = norms(v)
    gap, goal, r, t = size, tolerance * size * CLOSER, v, torch.zeros_like(v)
    steps = torch.zeros_like(size, dtype=torch.int64)
    for _ in range(ROUNDS):
        scale = gap.clamp_min(tiny)
        ask = (goal / scale).clamp_min(REACH)
        found, _, taken, _ = diagonal(low, d32, (r / scale[:, None]).float(), ask.float(), max_steps)
        move = found.double().mul_(scale[:, None])
        move = move if r is v else move.add_(r)
        t = t + torch.where(torch.isfinite(move), move, 0.0)
        steps = steps + taken
        r = form.apply_m(d * (v + t)).sub_(t)
        gap = norms(r)
        if bool((gap <= tolerance * size).all()):
            return t, relative(gap, size), steps, gap <= tolerance * size
    more, ratio, taken, done = diagonal(form, d, r, (tolerance * size / gap.clamp_min(tiny)), max_steps)
    return t + r + more, ratio * relative(gap, size), steps + taken, done


def general(form: SymmetricLinearization, v: Tensor, tolerance: Tensor | float, max_steps: int) -> Answer:
    """M D w with (I − M D) w = v, in w itself, and again on the true residual, see `refined`, while that helps.

    D hides the part of a residual in its null space. Where that is large, ⟨r, D r⟩ is lost in its rounding and says
    nothing any more: on the simplex, with its constants, long before the solution is found.
    """
    size, t, r = norms(v), torch.zeros_like(v), v
    steps, last = torch.zeros_like(size, dtype=torch.int64), torch.full_like(size, torch.inf)
    unit, spent = NOISE * torch.finfo(v.dtype).eps, 0
    for _ in range(RESTARTS):
        scale = norms(r).clamp_min(torch.finfo(v.dtype).tiny)
        ask = (tolerance * size / scale).clamp_max(0.1)
        found, taken = in_w(form, r / scale[:, None], ask, max_steps - spent)
        move = found * scale[:, None] + (r if r is not v else 0.0)
        after = t + torch.where(torch.isfinite(move), move, 0.0)
        left = form.apply_m(form.apply_d(v + after)) - after
        gap = norms(left)
        closer = gap < last
        t, r = torch.where(closer[:, None], after, t), torch.where(closer[:, None], left, r)
        steps, before, last = steps + taken, last, torch.where(closer, gap, last)
        near = last <= torch.maximum(tolerance * size, unit * (norms(v + t) + size))
        spent += int(taken.max()) if taken.numel() else 0
        if spent >= max_steps or bool((near | ~(last < SLOW * before)).all()):
            break
    return t, relative(last, size), steps, near


def in_w(form: SymmetricLinearization, v: Tensor, tolerance: Tensor, max_steps: int) -> tuple[Tensor, Tensor]:
    """M D w (B, d) by one run of conjugate gradients, and its steps (B,)."""
    r, w = v.clone(), torch.zeros_like(v)
    p, dr = v.clone(), form.apply_d(v)
    dp = dr.clone()
    rr = dot(r, dr).clamp_min_(0)
    state = Tracker(rr, tolerance)
    for k in range(max_steps):
        q = p - form.apply_m(dp)
        a = state.length(rr, dot(dp, q))
        w.addcmul_(a, p)
        r.addcmul_(a, q, value=-1.0)
        dr = form.apply_d(r)
        new = dot(r, dr).clamp_min_(0)
        b = state.turn(new, rr, k + 1 == max_steps)
        rr = new
        if b is None:
            break
        p, dp = torch.addcmul(r, b, p), torch.addcmul(dr, b, dp)
    return form.apply_m(form.apply_d(w)), state.steps.squeeze(1)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """⟨x, y⟩ per row, (b, d) → (b, 1)."""
    product: Tensor = torch.linalg.vecdot(x, y)
    return product[:, None]
