"""Conjugate gradients for J = D M (D, M symmetric, D ⪰ 0), in the semi-inner product ⟨x, D y⟩."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System, plausible
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
        else:
            t, ratio, steps, done = diagonal(form, form.diagonal, right, tolerance, max_steps)
        w = t.add_(right) if system.transposed else form.apply_d(t.add_(right)).add_(v)
        return Linear(w, ratio, steps, done.logical_and_(plausible(w, v)))


class Assumed(SymmetricLinearization):
    """J taken as symmetric: D = I, M = Jᵀ."""

    def __init__(self, jacobian: Linearization) -> None:
        super().__init__(apply_matrix=jacobian.rmatvec, apply_diagonal=lambda x: x)


Answer = tuple[Tensor, Tensor, Tensor, Tensor]  # M D w (B, d), relative residual, steps, converged (B,)


class Tracker:
    """Which samples are done or broke down: their coefficients are zero, so that nothing of theirs moves any more."""

    def __init__(self, rr: Tensor, tolerance: Tensor | float) -> None:
        scale = tolerance.square()[:, None] if isinstance(tolerance, Tensor) else tolerance * tolerance
        self.first, self.target = rr, rr * scale
        self.idle = ~(rr > 0)  # NaN too
        self.taken, self.missed = 0, torch.zeros_like(rr, dtype=torch.int64)  # steps, and those a sample was idle
        self.flag = Flag(rr.device)

    def length(self, rr: Tensor, curvature: Tensor) -> Tensor:
        """rr / curvature, and 0 for idle samples."""
        self.idle.logical_or_(curvature <= 0)
        return rr.div(curvature).masked_fill_(self.idle, 0.0)

    def turn(self, new: Tensor, rr: Tensor) -> Tensor | None:
        """new / rr, and 0 for idle samples; None where all are."""
        self.taken += 1
        self.missed.add_(self.idle)
        self.idle.logical_or_(new <= self.target)
        if not self.flag.read(~self.idle):
            return None
        return new.div(rr).masked_fill_(self.idle, 0.0)

    def answer(self, t: Tensor, rr: Tensor) -> Answer:
        """The tuple that `CG` expects."""
        ratio = torch.where(rr > 0, (rr / self.first).sqrt(), 0.0).squeeze(1)
        return t, ratio, (self.taken - self.missed).squeeze(1), (rr <= self.target).squeeze(1)


def diagonal(form: SymmetricLinearization, d: Tensor, v: Tensor, tolerance: Tensor | float, max_steps: int) -> Answer:
    """M S q with (I − S M S) q = S v, S = D^½."""
    s = d if form.projector else d.clamp_min(0.0).sqrt()
    r = s * v
    p, x = r.clone(), torch.zeros_like(r)
    product, scratch = torch.empty_like(r), torch.empty_like(r)
    rr = dot(r, r)
    state = Tracker(rr, tolerance)
    for _ in range(max_steps):
        # a projector leaves p as it is: p lies in its range
        image = form.apply_m(p if form.projector else torch.mul(p, s, out=scratch), out=product)
        q = torch.addcmul(p, s, image, value=-1.0, out=scratch if image is product else None)
        a = state.length(rr, dot(p, q))
        x.addcmul_(a, p)
        r.addcmul_(a, q, value=-1.0)
        new = dot(r, r)
        b = state.turn(new, rr)
        rr = new
        if b is None:
            break
        torch.addcmul(r, b, p, out=p)
    t = form.apply_m(x if form.projector else x.mul_(s))
    return state.answer(t, rr)


def general(form: SymmetricLinearization, v: Tensor, tolerance: Tensor | float, max_steps: int) -> Answer:
    """M D w with (I − M D) w = v, in w itself."""
    r, w = v.clone(), torch.zeros_like(v)
    p, dr = v.clone(), form.apply_d(v)
    dp = dr.clone()
    rr = dot(r, dr).clamp_min_(0)
    state = Tracker(rr, tolerance)
    for _ in range(max_steps):
        q = p - form.apply_m(dp)
        a = state.length(rr, dot(dp, q))
        w.addcmul_(a, p)
        r.addcmul_(a, q, value=-1.0)
        dr = form.apply_d(r)
        new = dot(r, dr).clamp_min_(0)
        b = state.turn(new, rr)
        rr = new
        if b is None:
            break
        p, dp = torch.addcmul(r, b, p), torch.addcmul(dr, b, dp)
    t = form.apply_m(form.apply_d(w))
    return state.answer(t, rr)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """⟨x, y⟩ per row, (b, d) → (b, 1)."""
    product: Tensor = torch.linalg.vecdot(x, y)
    return product[:, None]
