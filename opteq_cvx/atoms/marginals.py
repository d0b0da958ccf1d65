"""Matrices X = φ(V + a1ᵀ + 1bᵀ) with given row sums r and column sums c, φ increasing: the potentials a, b.

They maximize the concave dual D(a, b) = ⟨r, a⟩ + ⟨c, b⟩ − Σ Φ(V + a1ᵀ + 1bᵀ), Φ' = φ. The rows' potentials a are exact
for each b, so that Newton's method works on b alone: its curvature is the Schur complement of a bipartite Laplacian
with the weights φ', damped in proportion to the residual and globalized by Armijo's rule. Where the entries of V differ
by much more than those of X can, V is reached by a continuation from a small multiple of it.
Derivatives are those of the optimality conditions, by one solve with the same Laplacian.
Source: Qi, Sun, *Semismooth Newton methods*, 1993 (as used for Birkhoff's polytope in Li, Sun, Toh, SIAM J. Optim.
30(4), 2020); Brauer, Clason, Lorenz, Wirth, *A Sinkhorn–Newton method for entropic optimal transport*, 2017.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.bipartite import Laplacian, consistent
from opteq_cvx.atoms.roots import Implicit
from opteq_cvx.atoms.threshold import water
from opteq_cvx.maps.peek import hidden

STEPS = 200  # of Newton's method at most; about 5 where V and X are of one size
COMPILED = 30  # of them where nothing may stop the loop: in a trace
SEARCHES = 10  # shorter steps tried, each a quarter of the last
DAMPING = 1e-2
GROWTH = 4.0  # of V's multiple in the continuation
LOOSE = 0.3  # residual, in units of a mean entry of a column, at which the continuation goes on


class Link(ABC):
    """φ and what the dual needs of it; `t` (*batch, 1, 1) is a parameter of φ."""

    @abstractmethod
    def rows(self, w: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """a (*batch, m) with φ(w + a1ᵀ)1 = r."""

    @abstractmethod
    def apply(self, w: Tensor, t: Tensor) -> Tensor:
        """φ(w)."""

    @abstractmethod
    def weight(self, x: Tensor, t: Tensor) -> Tensor:
        """φ'(w) at x = φ(w)."""

    @abstractmethod
    def by_parameter(self, x: Tensor, t: Tensor) -> Tensor:
        """∂φ(w)/∂t at x = φ(w)."""

    @abstractmethod
    def primitive(self, x: Tensor, t: Tensor) -> Tensor:
        """Φ(w) at x = φ(w), up to what depends on the row sums of x only."""

    @abstractmethod
    def reach(self, unit: Tensor, t: Tensor) -> Tensor:
        """How far entries of V may differ for a start without continuation; `unit` is the mean sum."""

    @abstractmethod
    def rounding(self, w: Tensor, r: Tensor) -> Tensor:
        """Size (*batch) of the numbers whose rounding shows in the column sums, w the largest parts of the argument."""


@dataclass(frozen=True, slots=True)
class Positive(Link):
    """φ(w) = max(w, 0): the projection."""

    @override
    def rows(self, w: Tensor, r: Tensor, t: Tensor) -> Tensor:
        return -water(w, r.unsqueeze(-1)).squeeze(-1)

    @override
    def apply(self, w: Tensor, t: Tensor) -> Tensor:
        return torch.relu(w)

    @override
    def weight(self, x: Tensor, t: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)

    @override
    def by_parameter(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)

    @override
    def primitive(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * x * x

    @override
    def reach(self, unit: Tensor, t: Tensor) -> Tensor:
        return 4.0 * unit

    @override
    def rounding(self, w: Tensor, r: Tensor) -> Tensor:
        return w + r


@dataclass(frozen=True, slots=True)
class Exponential(Link):
    """φ(w) = eʷ: entropic transport in the log domain, rows scaled by a log-sum-exp."""

    @override
    def rows(self, w: Tensor, r: Tensor, t: Tensor) -> Tensor:
        return r.clamp(min=torch.finfo(r.dtype).tiny).log() - w.logsumexp(-1)

    @override
    def apply(self, w: Tensor, t: Tensor) -> Tensor:
        return w.exp()

    @override
    def weight(self, x: Tensor, t: Tensor) -> Tensor:
        return x

    @override
    def by_parameter(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)

    @override
    def primitive(self, x: Tensor, t: Tensor) -> Tensor:
        return x

    @override
    def reach(self, unit: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(unit, 10.0)

    @override
    def rounding(self, w: Tensor, r: Tensor) -> Tensor:
        return (1.0 + w) * r


@dataclass(frozen=True, slots=True)
class Fit(Implicit):
    """X (*batch, m, n) for inputs V (*batch, m, n), r (*batch, m), c (*batch, n), t (*batch, 1, 1).

    Marginals with different totals are replaced by the nearest ones with equal totals.
    """

    link: Link

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, r, c, t = inputs
        r, c = consistent(r, c)
        if v.shape[-2] < v.shape[-1]:
            return _newton(self.link, v.mT, c, r, t).x.mT
        return _newton(self.link, v, r, c, t).x

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        t = inputs[3]
        dv, dr, dc, dt = tangents
        s = self.link.weight(x, t)
        fixed = s * dv + self.link.by_parameter(x, t) * dt
        system = Laplacian(s)
        a, b = system.solve(*system.onto_range(dr - fixed.sum(-1), dc - fixed.sum(-2)))
        return fixed + s * (a.unsqueeze(-1) + b.unsqueeze(-2))

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        t = inputs[3]
        s = self.link.weight(x, t)
        pulled = s * grad
        a, b = Laplacian(s).solve(pulled.sum(-1), pulled.sum(-2))
        rest = grad - a.unsqueeze(-1) - b.unsqueeze(-2)
        by_t = (self.link.by_parameter(x, t) * rest).sum((-2, -1), keepdim=True)
        return s * rest, a, b, by_t


def normal(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(a, b) with y_ij = a_i + b_j where x_ij > 0 and y_ij ≤ a_i + b_j elsewhere, for y (*batch, m, n) normal to the
    transport polytope at x; differentiable in y, where the derivative is not unique the shortest."""
    with torch.no_grad():
        v, t = x + y, x.new_ones(())
        wide = v.shape[-2] < v.shape[-1]
        v = v.mT if wide else v
        found = _newton(Positive(), v, *((x.sum(-2), x.sum(-1)) if wide else (x.sum(-1), x.sum(-2))), t)
        middle = 0.5 * v.mean((-2, -1)).unsqueeze(-1)
        a, b = v.mean(-1) - middle - found.a, v.mean(-2) - middle - found.b
        a, b = consistent(b, a) if wide else consistent(a, b)
    s = (x > 0).to(x.dtype)
    off = s * (y - a.unsqueeze(-1) - b.unsqueeze(-2))
    da, db = Laplacian(s).solve(off.sum(-1), off.sum(-2))
    return a + da, b + db


@dataclass(slots=True)
class _Point:
    """b with the rows' potentials, X, the columns' residual and D."""

    b: Tensor
    a: Tensor
    x: Tensor
    g: Tensor
    dual: Tensor
    size: Tensor  # of the numbers summed in D

    @staticmethod
    def at(link: Link, v: Tensor, r: Tensor, c: Tensor, t: Tensor, b: Tensor) -> "_Point":
        w = v + b.unsqueeze(-2)
        a = link.rows(w, r, t)
        x = link.apply(w + a.unsqueeze(-1), t)
        terms = (r * a).sum(-1) + (c * b).sum(-1)
        size = (r * a).abs().sum(-1) + (c * b).abs().sum(-1)
        inside = link.primitive(x, t).sum((-2, -1))
        return _Point(b, a, x, c - x.sum(-2), terms - inside, size + inside)

    def extent(self, v: Tensor) -> Tensor:
        return v.abs().amax((-2, -1)) + self.a.abs().amax(-1) + self.b.abs().amax(-1)


def _newton(link: Link, v: Tensor, r: Tensor, c: Tensor, t: Tensor) -> _Point:
    """X and its potentials for V less the means of its rows, then of its columns; m ≥ n."""
    v = v - v.mean(-1, keepdim=True)
    v = v - v.mean(-2, keepdim=True)
    unit = r.sum(-1) / v.shape[-2]
    far = v.abs().amax((-2, -1))
    part = (link.reach(unit, t.reshape(t.shape[:-2])) / far).clamp(max=1.0)
    part = torch.where((part > 0) & part.isfinite(), part, 1.0)
    eps = torch.finfo(v.dtype).eps
    now = part[..., None, None] * v
    first = link.rows(now, r, t)
    start = link.rows((now + first.unsqueeze(-1)).mT, c, t)
    p = _Point.at(link, now, r, c, t, start - start.mean(-1, keepdim=True))
    last = p.g.abs().amax(-1) + torch.inf
    for step in range(STEPS):
        residual = p.g.abs().amax(-1)
        grows = (part < 1.0) & (residual <= LOOSE * unit)
        if _any(grows):
            more = torch.where(grows, (GROWTH * part).clamp(max=1.0), part)
            b, part = p.b * (more / part).unsqueeze(-1), more
            now = part[..., None, None] * v
            p = _Point.at(link, now, r, c, t, b)
            residual = p.g.abs().amax(-1)
        rounding = eps * link.rounding(p.extent(now), r.abs().amax(-1))
        stalls = (residual <= 64.0 * rounding) & (residual > 0.5 * last)
        open_, last = (part < 1.0) | ((residual > rounding) & ~stalls), residual
        if not _any(open_) or (torch.compiler.is_compiling() and step == COMPILED):
            break
        p = _better(link, now, r, c, t, p, open_)
    return p


def _better(link: Link, v: Tensor, r: Tensor, c: Tensor, t: Tensor, p: _Point, open_: Tensor) -> _Point:
    """A damped Newton step where `open_`, shortened until D rises; the columns' exact potentials where that fails."""
    share = (p.g.abs().sum(-1) / r.sum(-1)).nan_to_num(1.0).clamp(max=1.0)
    damping = DAMPING * share + 16.0 * torch.finfo(v.dtype).eps
    step = Laplacian(link.weight(p.x, t), damping).column_step(p.g)
    step = torch.where(open_.unsqueeze(-1) & step.isfinite(), step, 0.0)
    slope = (p.g * step).sum(-1)
    slack = 16.0 * torch.finfo(v.dtype).eps * p.size
    length = torch.ones_like(slope)
    for _ in range(SEARCHES):
        to = _Point.at(link, v, r, c, t, p.b + length.unsqueeze(-1) * step)
        low = to.dual < p.dual + 1e-4 * length * slope - slack
        if not _any(low):
            return to
        length = torch.where(low, 0.25 * length, length)
        if torch.compiler.is_compiling():
            break
    exact = link.rows((v + p.a.unsqueeze(-1)).mT, c, t)
    return _Point.at(link, v, r, c, t, torch.where(low.unsqueeze(-1), exact, p.b + length.unsqueeze(-1) * step))


def _any(flags: Tensor) -> bool:
    """Whether a flag is set: a GPU is waited for, as a step costs more than the wait. In a trace, unknown is yes."""
    return flags.device.type != "meta" and (hidden(flags) or bool(flags.any()))
