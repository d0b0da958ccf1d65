"""Exact solves of problems with activations that have no cone form: Newton's method, each step a solve by CVXPY.

The f behind softplus, log-sigmoid, arctan and tanhshrink has no cone form, that of tanh only with ½y². But
f'(y) = a − y and f''(y) = 1/σ'(a) − 1 where σ(a) = y, and a comes by bisection of σ itself, apart from any formula
of f. Each such f(y) is replaced by its quadratic model at the present point, the program is solved exactly, and the
step is halved until the true objective falls. At the end the model's optimality conditions are the program's.

Source: J. Nocedal, S. Wright, Numerical Optimization, 2nd ed., algorithm 18.3, with the constraints kept as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

from opteq_cvx.declare.activation import ALONE, WITH_SQUARE, ActivationAtom
from opteq_cvx.ir.frozen import Array
from opteq_cvx.verify.answer import Exact, ExactStatus
from opteq_cvx.verify.cvx import FUNCTIONS
from opteq_cvx.verify.values import dense

Solve = Callable[[cp.Problem, Sequence[cp.Expression]], Exact]

STEPS = 60
ENOUGH = 1e-11  # relative change of the arguments at which the model's solution is the program's
ACCURATE = 1e-9  # relative error of the model's slopes there
SHORTEST = 2.0**-30
BISECTIONS = 200
STEEPEST = 1e12  # f'' is cut off there
INSIDE = 0.99  # share of the way to the end of f's domain that one step may go


@dataclass(frozen=True, slots=True)
class _Model:
    """f(y) ≈ Σ g (y − p) + ½h (y − p)² up to a constant, g, h, p of y's shape."""

    atom: ActivationAtom
    g: cp.Parameter
    h: cp.Parameter
    p: cp.Parameter

    @property
    def argument(self) -> cp.Expression:
        found: cp.Expression = self.atom.args[0]
        return found

    def expression(self) -> cp.Expression:
        y = self.argument
        moved = FUNCTIONS.multiply(self.g, y) + 0.5 * FUNCTIONS.multiply(self.h, FUNCTIONS.square(y - self.p))
        total: cp.Expression = moved + 0.5 * FUNCTIONS.square(y) if self.atom.half else moved
        return total

    def sides(self) -> list[cp.Constraint]:
        """The closed domain."""
        row, y = self.atom.row, self.argument
        low = [y >= row.lower] if np.isfinite(row.lower) else []
        return low + ([y <= row.upper] if np.isfinite(row.upper) else [])

    def start(self) -> Array:
        """σ(1), inside the domain, where f has a second derivative."""
        return self.atom.row.sigma(torch.ones(self.p.shape, dtype=torch.float64)).numpy()

    def at(self, y: Array) -> None:
        """Put f' and f'' at y into the parameters."""
        a = preimage(self.atom.row.sigma, y)
        slope = self.atom.row.slope(torch.from_numpy(a)).numpy()
        curved = np.minimum(1.0 / np.maximum(slope, 1.0 / STEEPEST) - 1.0, STEEPEST)
        self.p.value, self.h.value = y, np.maximum(curved, 0.0)
        self.g.value = a - y

    def error(self, y: Array) -> float:
        """How far the model's slope at y is from f'(y), relative."""
        slope = preimage(self.atom.row.sigma, y) - y
        g, h, p = (dense(parameter.value) for parameter in (self.g, self.h, self.p))
        return _relative(g + h * (y - p), slope)

    def room(self, y: Array, step: Array) -> float:
        """How far along `step` y stays inside the domain, at most 1."""
        row, t = self.atom.row, 1.0
        for end, there in ((row.lower, step < 0), (row.upper, step > 0)):
            if np.isfinite(end) and there.any():
                t = min(t, float((INSIDE * (end - y[there]) / step[there]).min(initial=1.0)))
        return t


def preimage(sigma: Callable[[Tensor], Tensor], y: Array) -> Array:
    """a with σ(a) = y for an increasing σ, by bisection; ±1e300 at the ends of σ's range."""
    target = torch.from_numpy(np.array(y, dtype=np.float64))
    low, high = -torch.ones_like(target), torch.ones_like(target)
    for _ in range(1000):
        under, over = sigma(low) > target, sigma(high) < target
        if not bool((under | over).any()):
            break
        low, high = torch.where(under, 2.0 * low, low), torch.where(over, 2.0 * high, high)
        low, high = low.clamp_min(-1e300), high.clamp_max(1e300)
    for _ in range(BISECTIONS):
        middle = 0.5 * low + 0.5 * high
        above = sigma(middle) > target
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return np.asarray((0.5 * low + 0.5 * high).numpy())


_Easier = tuple[cp.Problem, tuple[_Model, ...]]
_KEPT: WeakKeyDictionary[cp.Problem, _Easier] = WeakKeyDictionary()
"""The modelled problem of each, so that a solve at nearby values starts from the last model."""


def formless(problem: cp.Problem) -> list[ActivationAtom]:
    """The activations of the objective that CVXPY cannot solve."""
    found = {id(node): node for node in _nodes(problem.objective.expr) if isinstance(node, ActivationAtom)}
    return [atom for atom in found.values() if not _has_form(atom)]


def _has_form(atom: ActivationAtom) -> bool:
    name = atom.activation
    return name in ALONE or (atom.half and name in WITH_SQUARE) or atom.row.vector


def _nodes(root: Any) -> Iterator[Any]:
    yield root
    for arg in root.args:
        yield from _nodes(arg)


def solve_modelled(
    problem: cp.Problem, atoms: Sequence[ActivationAtom], outputs: Sequence[cp.Expression], solve: Solve
) -> Exact:
    """The exact solution by Newton steps; `solve` solves a problem with a cone form at the present parameter values.

    Returns:
        The last model's solution with the true objective; FAILED where the steps do not settle.
    """
    found = _KEPT.get(problem)
    if found is None:
        found = _KEPT[problem] = _easier(problem, atoms)
    easier, models = found
    asked = [*outputs, *(m.argument for m in models), *problem.variables()]
    points = [m.start() if m.p.value is None else dense(m.p.value) for m in models]
    present: list[Array] | None = None
    for _ in range(STEPS):
        for model, point in zip(models, points, strict=True):
            model.at(point)
        exact = solve(easier, asked)
        if not exact.status.solved:
            return exact
        n, k = len(outputs), len(outputs) + len(models)
        targets, there = list(exact.outputs[n:k]), list(exact.outputs[k:])
        gap = max(_relative(t, p) for t, p in zip(targets, points, strict=True))
        if gap <= ENOUGH and max(m.error(t) for m, t in zip(models, targets, strict=True)) <= ACCURATE:
            return _read(problem, exact, n, there)
        steps = [t - p for t, p in zip(targets, points, strict=True)]
        t = min(m.room(p, s) for m, p, s in zip(models, points, steps, strict=True))
        if present is not None:
            t = _shortened(problem, present, there, t)
            if t < SHORTEST:
                return _read(problem, exact, n, there) if gap <= ENOUGH**0.75 else _stalled(gap)
            there = [a + t * (b - a) for a, b in zip(present, there, strict=True)]
        elif t < 1.0:  # the start belongs to no point of the program: another model at a point nearer to it
            points = [p + t * s for p, s in zip(points, steps, strict=True)]
            continue
        present = there
        points = [p + t * s for p, s in zip(points, steps, strict=True)]
    return _stalled(gap)


def _easier(problem: cp.Problem, atoms: Sequence[ActivationAtom]) -> _Easier:
    models = tuple(_modelled(atom) for atom in atoms)
    swap = {id(m.atom): m.expression() for m in models}
    objective = type(problem.objective)(_replaced(problem.objective.expr, swap))
    return cp.Problem(objective, [*problem.constraints, *(side for m in models for side in m.sides())]), models


def _modelled(atom: ActivationAtom) -> _Model:
    shape = tuple(atom.args[0].shape)
    return _Model(atom, cp.Parameter(shape), cp.Parameter(shape, nonneg=True), cp.Parameter(shape))


def _replaced(node: Any, swap: dict[int, cp.Expression]) -> Any:
    if id(node) in swap:
        return swap[id(node)]
    args = [_replaced(arg, swap) for arg in node.args]
    return node if all(a is b for a, b in zip(args, node.args, strict=True)) else node.copy(args)


def _relative(a: Array, b: Array) -> float:
    return float(np.abs(a - b).max(initial=0.0)) / (1.0 + float(np.abs(b).max(initial=0.0)))


def _value(problem: cp.Problem, variables: Sequence[Array]) -> float:
    """The objective as a minimum."""
    for variable, value in zip(problem.variables(), variables, strict=True):
        variable.save_value(value)
    found = problem.objective.expr.value
    sign = 1.0 if isinstance(problem.objective, cp.Minimize) else -1.0
    return float("inf") if found is None or np.isnan(found) else sign * float(np.sum(dense(found)))


def _shortened(problem: cp.Problem, here: Sequence[Array], there: Sequence[Array], t: float) -> float:
    """The first of t, t/2, … at which the objective does not rise, up to rounding."""
    start = _value(problem, here)
    slack = 1e-13 * (1.0 + abs(start))
    while t >= SHORTEST:
        if _value(problem, [a + t * (b - a) for a, b in zip(here, there, strict=True)]) <= start + slack:
            return t
        t *= 0.5
    return t


def _read(problem: cp.Problem, exact: Exact, count: int, variables: Sequence[Array]) -> Exact:
    sign = 1.0 if isinstance(problem.objective, cp.Minimize) else -1.0
    return replace(
        exact,
        outputs=exact.outputs[:count],
        objective=sign * _value(problem, variables),
        variables=tuple(variables),
        duals=exact.duals[: len(problem.constraints)],
        conic=None,
    )


def _stalled(gap: float) -> Exact:
    return Exact(ExactStatus.FAILED, note=f"Newton steps on activations without a cone form stopped {gap:.1e} short")
