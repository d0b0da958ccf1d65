"""The root behind every p-norm: its prox, and the projection on the ball of the dual norm.

With u = |v| and x = s·y, ‖y‖_p = 1, the prox of t‖·‖_p is the root s of ‖y(s)‖_p = 1 where s·yᵢ + t·yᵢ^(p−1) = uᵢ;
v − x = t·y^(p−1) is the projection on {‖·‖_q ≤ t}, 1/p + 1/q = 1. Of y and z = y^(p−1) the one with the larger
exponent is the unknown w: αw + βw^(r−1) = u, r = max(p, q) ≥ 2, a convex equation whose Newton steps are sums of
positive numbers and fall to the root from above.
Source: optimality; Moreau 1965 (the ball); Moré, Sorensen 1983 (the root of 1/‖y(s)‖, which is almost linear).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.roots import Implicit, may_stop, newton

INNER = 60
"""Most steps of an entry's root: about ln r and then quadratic convergence."""


def p_norm(x: Tensor, p: float) -> Tensor:
    """(Σ |xᵢ|^p)^(1/p) along the last axis, kept, without overflow; its derivative at 0 is 0. For p < 0 and x ≥ 0
    it is 0 where an entry is."""
    size = x.abs()
    ends = size.detach().amin if p < 0 else size.detach().amax
    unit = ends(-1, keepdim=True)
    unit = torch.where(unit > 0, unit, 1.0)
    some = size != 0
    total = torch.where(some, torch.where(some, size / unit, 1.0) ** p, 0.0).sum(-1, keepdim=True)
    there = some.any(-1, keepdim=True) if p > 0 else some.all(-1, keepdim=True)
    return torch.where(there, unit * torch.where(there, total, 1.0) ** (1.0 / p), 0.0)


@dataclass(frozen=True, slots=True)
class NormRoot(Implicit):
    """x = prox of t‖·‖_p at v, p > 1, or with `ball` v − x; inputs v (*batch, n), t (*batch, 1).

    With aᵢ = 1/(s + t(p − 1)yᵢ^(p−2)) and gᵢ = sign(xᵢ)yᵢ^(p−1) the derivative of x is, by Sherman and Morrison,
    diag(s·a) + t(p − 1)(a∘g)(a∘g)ᵀ/E with E = Σ a·y^p, and −(a∘g)/E in t. Nothing cancels, also for s → 0.
    """

    p: float
    ball: bool = False

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, t = inputs
        p, q = self.p, self.p / (self.p - 1.0)
        size = v.abs()
        unit = size.amax(-1, keepdim=True)
        unit = torch.where(unit > 0, unit, 1.0)
        u, step = size / unit, (t / unit).clamp(max=2.0 * v.shape[-1])
        lost = p_norm(u, q) <= step  # x = 0
        none = step <= 0
        step = torch.where(lost | none, torch.where(step.isnan(), step, 0.5), step)
        u = torch.where(lost, torch.ones_like(u), u)
        w, s = _root(u, step, p)
        near, far = (s * w, step * w ** (p - 1.0)) if p >= 2 else (s * w ** (q - 1.0), step * w)
        r = max(p, q)
        # one of the two is a high power of w: it or what the other one leaves, whichever rounds less
        power, plain = (far, near) if p >= 2 else (near, far)
        power = torch.where((r - 1.0) * power > u, torch.relu(u - plain), power)
        near, far = (plain, power) if p >= 2 else (power, plain)
        if self.ball:
            out = torch.where(lost, size, torch.where(none, 0.0, far * unit))
        else:
            out = torch.where(lost, 0.0, torch.where(none, size, near * unit))
        return out * v.sign()

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        apply, by_t = self._derivative(x, inputs)
        return apply(tangents[0]) + by_t * tangents[1]

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        apply, by_t = self._derivative(x, inputs)
        return apply(grad), (by_t * grad).sum(-1, keepdim=True)

    def _derivative(self, out: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """The derivative by v, symmetric, as a map, and the one by t."""
        v, t = inputs
        p, k = self.p, self.p - 1.0
        x = v - out if self.ball else out
        s = p_norm(x, p)
        live = s > 0
        outer = (p_norm(v, p / k) >= t) & (out != 0).any(-1, keepdim=True) if self.ball else live
        if self.ball:  # y from the part that is known to rounding
            some = (out != 0) & (t > 0)
            y = torch.where(some, torch.where(some, out, 1.0).abs() / torch.where(t > 0, t, 1.0), 1.0) ** (1.0 / k)
            zero = torch.where(live, v.abs() / torch.where(live, s, 1.0), 0.0)  # of a ball of radius 0
            y = torch.where(t > 0, torch.where(some, y, 0.0), zero)
            outer = outer | ((t <= 0) & live)
        else:
            y = x.abs() / torch.where(live, s, 1.0)
        some = y > 0
        safe = torch.where(some, y, 1.0)
        bend = t * k * safe ** (p - 2.0)
        at_zero = torch.where((t > 0) & (p < 2), torch.inf, 0.0)  # of t(p − 1)y^(p−2)
        below = s + torch.where(some, bend, 0.0)
        a = torch.where(below > 0, 1.0 / torch.where(below > 0, below, 1.0), 0.0)
        a = torch.where(some | (at_zero == 0), a, 0.0)
        g = torch.where(some, v.sign() * safe**k, 0.0)
        ag = a * g
        total = torch.where(some, a * safe**p, 0.0).sum(-1, keepdim=True)
        total = torch.where(total > 0, total, 1.0)
        by_t = -ag / total
        rest = torch.where(some, bend * a, torch.where(at_zero > 0, 1.0, 0.0))  # 1 − s·a

        def apply(h: Tensor) -> Tensor:
            shared = t * k * ag * ((ag * h).sum(-1, keepdim=True) / total)
            if self.ball:
                return torch.where(outer, rest * h - shared, h)
            return torch.where(outer, s * a * h + shared, 0.0)

        return apply, torch.where(outer, -by_t if self.ball else by_t, 0.0)


def _root(u: Tensor, t: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """w (y for p ≥ 2, else z) and s > 0, for 0 ≤ u ≤ 1 with an entry 1, 0 < t < ‖u‖_q; without derivative."""
    n, q = u.shape[-1], p / (p - 1.0)
    r, kappa = max(p, q), max(1.0, q - 1.0)
    norm, dual = p_norm(u, p), p_norm(u, q)
    slack = 8.0 * torch.finfo(u.dtype).eps
    # ‖x‖₂² = ⟨u, x⟩ − ts, and ‖u − x‖_p ≤ t n^(1/p − 1/q) for p < 2
    high = torch.minimum(norm, (dual - t) * n ** max(0.0, 2.0 / p - 1.0)) * (1.0 + slack) + slack * norm
    low = torch.relu(norm * (1.0 - slack) - t * n ** max(0.0, 2.0 / p - 1.0))
    start = torch.minimum(torch.maximum(norm * (1.0 - t / dual), low), high)
    warm: list[Tensor] = []  # s, w and dw/ds of the last step

    def residual(s: Tensor) -> tuple[Tensor, Tensor]:
        alpha, beta = (s, t) if p >= 2 else (t, s)
        guess = warm[1] + warm[2] * (s - warm[0]) if warm else None
        w = _entries(u, alpha, beta, r, guess)
        power = torch.where(w > 0, w, 1.0) ** (r - 2.0)
        below = alpha + (r - 1.0) * beta * power
        by_s = torch.where(w > 0, -w / below * (1.0 if p >= 2 else power), 0.0)
        warm[:] = [s, w, by_s]
        total = (w * w * power).sum(-1, keepdim=True)
        inverse = total ** (-kappa / r)
        slope = -kappa * inverse * (w * power * by_s).sum(-1, keepdim=True) / total
        return inverse - 1.0, slope

    s = newton(residual, low, high, start, scale=norm)
    alpha, beta = (s, t) if p >= 2 else (t, s)
    return _entries(u, alpha, beta, r, warm[1]), s


def _entries(u: Tensor, alpha: Tensor, beta: Tensor, r: float, start: Tensor | None) -> Tensor:
    """w ≥ 0 with αw + βw^(r−1) = u, α, β ≥ 0 not both 0."""
    some = u > 0
    b = torch.where(some, u, 1.0)
    high = torch.minimum(b / alpha, (b / beta) ** (1.0 / (r - 1.0)))
    w = high if start is None else torch.where(start > 0, torch.minimum(start, high), high)
    eps = torch.finfo(u.dtype).eps
    for _ in range(INNER):
        power = beta * w ** (r - 2.0)
        to = torch.minimum((b + (r - 2.0) * power * w) / (alpha + (r - 1.0) * power), high)
        moves = (to - w).abs() > 4.0 * eps * to
        w = to
        if may_stop(w, moves):
            break
    return torch.where(some, w, u)
