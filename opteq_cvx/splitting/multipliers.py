"""Multipliers of the user's own constraints, from those of the sets that the passes made of them.

The normal cone of an intersection is the sum of the normal cones. Where a box, a simplex, a box with a plane, a
transport polytope or a monotone cone took the place of several sets, its multiplier g at a point p is a sum of theirs:
    plane ⟨a, x⟩ = b:   μ = ⟨a, g⟩/⟨a, a⟩ over the coordinates strictly between their bounds, or else any μ that
                        leaves g − μa the right sign on both bounds;
    bounds:             the rest, to the tightest upper bound where it is positive, to the tightest lower one else;
    row and column sums: in `grid_multipliers`;
    chain c(x₂ − x₁), …: the partial sums of −g along the path, over c.
Source: Rockafellar, *Convex Analysis*, theorem 23.8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.atoms import atom
from opteq_cvx.ir.frozen import Frozen, IntArray
from opteq_cvx.ir.layout import Layout, as_selection
from opteq_cvx.ir.param import ParamExpr
from opteq_cvx.ir.program import Constraint, Dual, Program, Term
from opteq_cvx.maps.bind import bind
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.passes.find_chains import Paths, paths
from opteq_cvx.passes.intervals import interval_bounds
from opteq_cvx.passes.merge_simplex import RELATION
from opteq_cvx.passes.rows import Sums, sums
from opteq_cvx.splitting.grid_multipliers import GridPlanes, grid_planes
from opteq_cvx.splitting.objective import term_data

Rows = Mapping[int, tuple[Tensor, Tensor]]
"""By id of a term of the planned program: its point and multiplier, both (B, *argument)."""


@dataclass(frozen=True, slots=True)
class _Interval:
    term: int
    index: IntArray
    lower: ParamExpr
    upper: ParamExpr


@dataclass(frozen=True, slots=True)
class _Plane:
    term: int
    sums: Sums
    relation: int


@dataclass(frozen=True, slots=True)
class _Chain:
    term: int
    sign: float
    paths: tuple[Paths, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Multipliers(Frozen):
    """How the multipliers of a planned program become those of the program as it was read.

    `taken` are the sets that the passes replaced, `made` what they put in their place: (term, coordinates).
    """

    program: Program
    n: int
    intervals: tuple[_Interval, ...]
    planes: tuple[_Plane, ...]
    chains: tuple[_Chain, ...]
    made: tuple[tuple[Term, IntArray], ...]
    grids: tuple[GridPlanes, ...] = ()

    @staticmethod
    def of(read: Program, planned: Program) -> "Multipliers":
        """Compare the program as read with the planned one: terms that passes leave alone are the same objects."""
        layout = Layout.of(read)
        kept, known = {id(t) for t in planned.terms}, {id(t) for t in read.terms}
        intervals, planes, chains = list[_Interval](), list[_Plane](), list[_Chain]()
        for i, term in enumerate(read.terms):
            if id(term) in kept:
                continue
            bounds, selection = interval_bounds(term), as_selection(term.arg, layout)
            if bounds is not None and selection is not None and selection.plain:
                intervals.append(_Interval(i, selection.index, *bounds))
            elif term.atom in RELATION:
                summed = sums(term.arg, layout)
                walked = paths(term, layout) if summed is None else None
                if summed is not None:
                    planes.append(_Plane(i, summed, RELATION[term.atom]))
                elif walked is not None:
                    chains.append(_Chain(i, -1.0 if term.atom == "nonpos" else 1.0, tuple(walked)))
        made = []
        for term in planned.terms:
            selection = as_selection(term.arg, layout) if id(term) not in known and term.atom in MERGED else None
            if selection is not None:
                made.append((term, selection.index))
        grids = grid_planes(made, [(p.term, p.sums) for p in planes])
        own = {k for g in grids for k in g.terms}
        rest = tuple(p for p in planes if p.term not in own)
        return Multipliers(read, layout.n, tuple(intervals), rest, tuple(chains), tuple(made), grids)

    def __call__(self, rows: Rows, env: Environment) -> list[tuple[Tensor, ...]]:
        """The dual variables of each constraint, (B, *shape), with CVXPY's signs."""
        back = self._given_back(rows, env) if self.made else {}
        out: list[tuple[Tensor, ...]] = []
        for constraint in self.program.constraints:
            y = self._of(constraint, rows, back, env)
            if y is None:
                out.append((torch.zeros(1, *constraint.shape, dtype=env.dtype, device=env.device),))
            else:
                out.append(tuple(dual_value(d, y, env) for d in constraint.duals))
        return out

    def joined(self, constraint: int, rows: Rows, env: Environment) -> Tensor:
        """All dual variables of a constraint: of a cone with several, one row for each cone."""
        record = self.program.constraints[constraint]
        if record.joined is None:
            return self(rows, env)[constraint][0]
        y = self._of(record, rows, {}, env)
        assert y is not None, "cones of several scalars are never merged"
        return dual_value(record.joined, y, env)

    def _of(self, constraint: Constraint, rows: Rows, back: Mapping[int, Tensor], env: Environment) -> Tensor | None:
        """The multiplier of a constraint's first term, of a level set that of its function."""
        if not constraint.terms:
            return None
        first = constraint.terms[0]
        if first in back:
            return back[first]
        term = self.program.terms[first]
        w, y = rows[id(term)]
        found = atom(term.atom).from_static(term.static).multiplier(w, y, term_data(term, env))
        return y if found is None else found

    def _given_back(self, rows: Rows, env: Environment) -> dict[int, Tensor]:
        """The multiplier of each replaced set, by its place among the terms that were read."""
        g, p = self._scattered(rows)
        lower, upper = self._bounds(env, g)
        out: dict[int, Tensor] = {}
        for chain in self.chains:
            out[chain.term], g = self._chain(chain, g)
        for grid in self.grids:
            shapes = {k: self.program.terms[k].arg.shape for k in grid.terms}
            found, g = grid(g, p, shapes)
            out |= found
        for plane in self.planes:
            out[plane.term], g = self._plane(plane, g, p, lower, upper, env)
        open_above, open_below = torch.ones_like(g, dtype=torch.bool), torch.ones_like(g, dtype=torch.bool)
        for interval in self.intervals:
            at = _tensor(interval.index, g)
            shape = (-1, *interval.index.shape)
            low, high = (_on(env(b), interval.index) for b in (interval.lower, interval.upper))
            here, above, below = g[:, at], open_above[:, at], open_below[:, at]
            up = (here > 0) & (high <= upper[:, at]) & torch.isfinite(high) & above
            down = (here < 0) & (low >= lower[:, at]) & torch.isfinite(low) & below
            out[interval.term] = torch.where(up | down, here, torch.zeros_like(here)).reshape(shape)
            open_above[:, at], open_below[:, at] = above & ~up, below & ~down
        return out

    def _scattered(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Multipliers and points of the sets that passes made, on all coordinates (B, n)."""
        found = [(*rows[id(term)], index) for term, index in self.made]
        batch, like = max(w.shape[0] for w, _, _ in found), found[0][0]
        g, p = like.new_zeros(batch, self.n), like.new_zeros(batch, self.n)
        for w, y, index in found:
            at = _tensor(index, g).expand(batch, -1)
            g = g.scatter_add(1, at, y.reshape(y.shape[0], index.size).expand(batch, -1))
            p = p.scatter_add(1, at, w.reshape(w.shape[0], index.size).expand(batch, -1))
        return g, p

    def _bounds(self, env: Environment, like: Tensor) -> tuple[Tensor, Tensor]:
        """The tightest lower and upper bound of each coordinate (B, n), without gradient."""
        lower, upper = torch.full_like(like, -torch.inf), torch.full_like(like, torch.inf)
        for interval in self.intervals:
            at = _tensor(interval.index, like)
            low, high = (_on(env(b).detach(), interval.index) for b in (interval.lower, interval.upper))
            lower[:, at] = torch.maximum(lower[:, at], low)
            upper[:, at] = torch.minimum(upper[:, at], high)
        return lower, upper

    def _chain(self, chain: _Chain, g: Tensor) -> tuple[Tensor, Tensor]:
        """Row c(x_j − x_i) of a step i → j gives −c y to g_i and c y to g_j: y = −Σ_{k ≤ i} g_k / c."""
        steps = sum(p.edge.size for p in chain.paths)
        y = g.new_zeros(g.shape[0], steps)
        for p in chain.paths:
            along = g[:, _tensor(p.index, g)].reshape(g.shape[0], *np.atleast_2d(p.index).shape)
            sums_ = along.cumsum(-1)[..., :-1].reshape(g.shape[0], -1)
            size = torch.as_tensor(p.size[p.edge].reshape(-1), dtype=g.dtype, device=g.device)
            y = y.index_copy(1, _tensor(p.edge, g), -chain.sign * sums_ / size)
            g = g.index_fill(1, _tensor(p.index, g), 0.0)
        return y.reshape(g.shape[0], *self.program.terms[chain.term].arg.shape), g

    def _plane(
        self, plane: _Plane, g: Tensor, p: Tensor, lower: Tensor, upper: Tensor, env: Environment
    ) -> tuple[Tensor, Tensor]:
        s = plane.sums
        at, event = _tensor(s.index, g), (-1, *s.index.shape)
        a = env(s.coefficients)
        here, point, low, high = (t[:, at].reshape(event) for t in (g, p, lower, upper))
        mu = level(here, point, a, low, high, s.axes, plane.relation)
        left = (here - mu * a).reshape(g.shape[0], -1)
        y = mu.reshape(g.shape[0], *self.program.terms[plane.term].arg.shape)
        return y, g.index_copy(1, at, left)


MERGED = ("box", "nonneg", "nonpos", "simplex", "box_plane", "monotone", "transport")


def level(g: Tensor, p: Tensor, a: Tensor, lower: Tensor, upper: Tensor, axes: Sequence[int], relation: int) -> Tensor:
    """μ with g − μa normal to lower ≤ x ≤ upper at p, along `axes` (kept); ≥ 0 for relation 1, ≤ 0 for −1."""
    along = tuple(axes)
    a = a.expand_as(g)
    some = a != 0
    free = (p > lower) & (p < upper) & some
    weight = torch.where(free, a * a, 0.0).sum(along, keepdim=True)
    mean = torch.where(free, a * g, 0.0).sum(along, keepdim=True) / torch.where(weight > 0, weight, 1.0)
    slope = g / torch.where(some, a, 1.0)
    fixed = lower >= upper
    least = some & ~free & ~fixed & torch.where(p <= lower, a > 0, a < 0)
    most = some & ~free & ~fixed & ~least
    floor = _extreme(torch.where(least, slope, -torch.inf), along, largest=True)
    ceiling = _extreme(torch.where(most, slope, torch.inf), along, largest=False)
    floor = floor.clamp_min(0.0) if relation > 0 else floor
    ceiling = ceiling.clamp_max(0.0) if relation < 0 else ceiling
    both = torch.isfinite(floor) & torch.isfinite(ceiling)
    end = torch.where(torch.isfinite(floor), floor, torch.where(torch.isfinite(ceiling), ceiling, 0.0))
    middle = torch.where(both, 0.5 * (torch.where(both, floor, 0.0) + torch.where(both, ceiling, 0.0)), end)
    mu = torch.where(weight > 0, mean, middle)
    return mu.clamp_min(0.0) if relation > 0 else mu.clamp_max(0.0) if relation < 0 else mu


def _extreme(x: Tensor, axes: tuple[int, ...], *, largest: bool) -> Tensor:
    return x.amax(axes, keepdim=True) if largest else x.amin(axes, keepdim=True)


def dual_value(dual: Dual, y: Tensor, env: Environment) -> Tensor:
    """factor · map(‖y‖) of a multiplier y (B, *argument)."""
    axes = dual.axes
    match dual.norm:
        case "l1":
            y = y.abs().sum(axes, keepdim=True) if axes else y.abs()
        case "linf":
            y = y.abs().amax(axes, keepdim=True) if axes else y.abs()
        case "l2":
            y = torch.linalg.vector_norm(y, dim=axes, keepdim=True) if axes else y.abs()
        case _:
            pass
    out = bind(dual.map, env).apply(y)
    return out if dual.factor is None else (out * env(dual.factor)).nan_to_num(0.0, 0.0, 0.0)


def _tensor(index: IntArray, like: Tensor) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(index).reshape(-1), device=like.device)


def _on(bound: Tensor, index: IntArray) -> Tensor:
    """A bound (1|B, *shape) in the flat order of the entries that it bounds."""
    missing = index.ndim - (bound.ndim - 1)
    bound = bound.reshape(bound.shape[0], *(1,) * missing, *bound.shape[1:])
    return bound.expand(bound.shape[0], *index.shape).reshape(bound.shape[0], index.size)
