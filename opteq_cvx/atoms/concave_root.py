"""The root behind concave p-norms: the prox of −t‖x‖_p on x ≥ 0 for p < 1, p ≠ 0.

With x = s·y, ‖y‖_p = 1, the prox is the root s of ‖y(s)‖_p = 1 where s·yᵢ − t·yᵢ^(p−1) = vᵢ. Each of these equations
is concave and increases, so that Newton's steps rise to its root from below; ‖y(s)‖_p falls in s.
Where ‖max(−v, 0)‖_q ≥ t, 1/p + 1/q = 1, the prox is max(v, 0): by Moreau −v then holds the whole dual point.
Source: optimality; Hardy, Littlewood, Pólya 1952, section 2.8 (Hölder's inequality for p < 1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.p_root import p_norm
from opteq_cvx.atoms.roots import Implicit, may_stop, newton

INNER = 60
"""Most steps of an entry's root: it starts close below."""


@dataclass(frozen=True, slots=True)
class ConcaveRoot(Implicit):
    """x = prox of −t‖·‖_p at v; inputs v (*batch, n), t (*batch, 1).

    With aᵢ = 1/(s + t(1 − p)yᵢ^(p−2)) and gᵢ = yᵢ^(p−1) the derivative of x is, by Sherman and Morrison,
    diag(s·a) + t(1 − p)(a∘g)(a∘g)ᵀ/E with E = Σ a·y^p, and (a∘g)/E in t: sums of numbers of one sign.
    """

    p: float

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, t = inputs
        unit = torch.maximum(v.abs().amax(-1, keepdim=True), t)
        unit = torch.where(unit > 0, unit, 1.0)
        u, step = v / unit, t / unit
        lost = self._lost(u, step)
        u, step = torch.where(lost, 1.0, u), torch.where(lost, torch.ones_like(step), step)
        y, s = self._root(u, step)
        risen = u + step * y ** (self.p - 1.0)  # of the two forms of x the one that adds
        x = torch.where(u >= 0, risen, s * y)
        return torch.where(lost, torch.where(v <= 0, 0.0, v), x * unit)

    def _lost(self, v: Tensor, t: Tensor) -> Tensor:
        """Whether x = max(v, 0)."""
        return (p_norm(torch.relu(-v), self.p / (self.p - 1.0)) >= t) | (t <= 0)

    def _root(self, v: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """y and s > 0; without derivative."""
        p, n = self.p, v.shape[-1]
        widest = n ** (1.0 / p - 0.5)  # ‖x‖_p ≤ widest·‖x‖₂, and ‖x‖₂² = ⟨v, x⟩ + t‖x‖_p
        positive = torch.relu(v)
        slack = 16.0 * torch.finfo(v.dtype).eps
        low = p_norm(positive, p) * (1.0 - slack)
        norm = torch.linalg.vector_norm(positive, dim=-1, keepdim=True)
        high = widest * (norm + widest * t) * (1.0 + slack)
        start = torch.minimum(low + widest**2 * t, high)
        warm: list[Tensor] = []

        def residual(s: Tensor) -> tuple[Tensor, Tensor]:
            y = self._entries(v, s, t, warm[0] if warm else None)
            warm[:] = [y]
            unit = y.amin(-1, keepdim=True) if p < 0 else y.amax(-1, keepdim=True)
            share = (y / unit) ** p
            total = share.sum(-1, keepdim=True)
            falls = (share * y / (s * y + (1.0 - p) * t * y ** (p - 1.0))).sum(-1, keepdim=True) / total
            inverse = total ** (-1.0 / p) / unit
            return inverse - 1.0, inverse * falls

        s = newton(residual, low, high, start)
        return self._entries(v, s, t, warm[0]), s

    def _entries(self, v: Tensor, s: Tensor, t: Tensor, start: Tensor | None) -> Tensor:
        """y > 0 with s·y − t·y^(p−1) = v."""
        p = self.p
        middle = (t / s) ** (1.0 / (2.0 - p))  # y at v = 0
        low = torch.where(v >= 0, torch.maximum(v / s, middle), (t / (s * middle - v)) ** (1.0 / (1.0 - p)))
        y = low if start is None else torch.maximum(torch.where(start.isfinite(), start, low), low)
        rounding = 4.0 * torch.finfo(v.dtype).eps * (1.0 + 1.0 / (1.0 - p))  # what that of y^(p−1) does to y
        for _ in range(INNER):
            fall = t * y ** (p - 1.0)
            step = (s * y - fall - v) / (s + (1.0 - p) * fall / y)
            to = torch.maximum(y - step, low)
            moves = (to - y).abs() > rounding * to
            y = to
            if may_stop(y, moves):
                break
        return y

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        keeps, ag, total, rate, live = self._derivative(x, inputs)
        dv, dt = tangents
        shared = ag * (rate * (ag * dv).sum(-1, keepdim=True) + dt) / total
        return torch.where(live, keeps * dv + shared, torch.where(x > 0, dv, 0.0))

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        keeps, ag, total, rate, live = self._derivative(x, inputs)
        common = (ag * grad).sum(-1, keepdim=True) / total
        by_v = torch.where(live, keeps * grad + rate * ag * common, torch.where(x > 0, grad, 0.0))
        return by_v, torch.where(live, common, 0.0)

    def _derivative(self, x: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """s·a, a∘g, E, t(1 − p), and where they count."""
        v, t = inputs
        p = self.p
        s = p_norm(x, p)
        some = x > 0
        live = (s > 0) & ~(self._lost(v, t) & (t > 0))
        y = torch.where(some & live, x, 1.0) / torch.where(live, s, 1.0)
        rate = t * (1.0 - p)
        if p < 0:  # y ≥ 1 may be huge, for 0 < p < 1 tiny
            below = s + rate * y ** (p - 2.0)
            a = torch.where(live, 1.0 / torch.where(live, below, 1.0), 0.0)
            keeps, ag, total = s * a, a * y ** (p - 1.0), a * y**p
        else:
            grown = y ** (2.0 - p)
            below = s * grown + rate
            below = torch.where(live & (below > 0), below, 1.0)
            keeps, ag, total = s * grown / below, y / below, y * y / below
        keeps, ag, total = (torch.where(some, part, 0.0) for part in (keeps, ag, total))
        total = total.sum(-1, keepdim=True)
        return keeps, ag, torch.where(total > 0, total, 1.0), rate, live
