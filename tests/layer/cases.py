"""Programs with inputs, by the splitting they should get: solved by the layer and by Clarabel in the same test."""

from collections.abc import Callable
from dataclasses import dataclass

import cvxpy as cp
import numpy as np

import opteq_cvx as oc


@dataclass(frozen=True)
class Case:
    """A declared problem: its inputs (with a sampler of their values) and outputs."""

    name: str
    splitting: str
    make: Callable[[], tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]]
    draw: Callable[[np.random.Generator], list[np.ndarray]]


def _opteq() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    n, k = 8, 5
    rng = np.random.default_rng(0)
    x = oc.Input(k, name="x")
    weight = oc.Weight((n, n), name="W", norm=0.9, init=rng.normal(size=(n, n)) / 6)
    u_in = oc.Weight((n, k), name="U", init=rng.normal(size=(n, k)))
    b = oc.Weight(n, name="b", init=rng.normal(size=n))
    lam = oc.Weight(name="lam", nonneg=True, init=0.1)
    u = cp.Variable(n, nonneg=True, name="u")
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(n) - weight @ weight.T)) - (u_in @ x + b) @ u
    return cp.Problem(cp.Minimize(energy + lam * cp.norm1(u))), [x], [u]


def _lasso() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    rng = np.random.default_rng(1)
    y, lam = cp.Parameter(6, name="y"), cp.Parameter(nonneg=True, name="lam")
    a, z = rng.normal(size=(6, 9)), cp.Variable(9, name="z")
    cost = 0.5 * cp.sum_squares(a @ z - y) + lam * cp.norm1(z) + 0.05 * cp.sum_squares(z)
    return cp.Problem(cp.Minimize(cost)), [y, lam], [z]


def _box_qp() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    p_half, q = cp.Parameter((4, 4), name="B"), cp.Parameter(4, name="q")
    low, high = cp.Parameter(4, name="l"), cp.Parameter(4, name="h")
    x = cp.Variable(4, name="x")
    cost = cp.quad_form(x, cp.psd_wrap(p_half @ p_half.T + np.eye(4))) + q @ x
    return cp.Problem(cp.Minimize(cost), [x >= low, x <= high]), [p_half, q, low, high], [x]


def _projection() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    y = cp.Parameter((2, 3), name="y")
    x = cp.Variable((2, 3), name="x")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - y)), [x >= -0.5, x <= 1]), [y], [2 * x + 1]


def _two_variables() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    rng = np.random.default_rng(2)
    y = cp.Parameter(7, name="y")
    a, c = rng.normal(size=(7, 3)), rng.normal(size=(7, 4))
    x, w = cp.Variable(3, name="x"), cp.Variable(4, nonneg=True, name="w")
    fit = cp.sum_squares(a @ x + c @ w - y)
    return cp.Problem(cp.Minimize(fit + cp.norm1(x) + 0.1 * cp.sum_squares(x) + cp.sum(w))), [y], [x, w]


def _maximize() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    mu = cp.Parameter(5, name="mu")
    rng = np.random.default_rng(3)
    f = rng.normal(size=(5, 5))
    w = cp.Variable(5, name="w")
    return cp.Problem(cp.Maximize(mu @ w - cp.quad_form(w, f @ f.T + np.eye(5))), [w >= 0]), [mu], [w, cp.sum(w)]


def _portfolio() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    mu = cp.Parameter(6, name="mu")
    rng = np.random.default_rng(4)
    f = rng.normal(size=(6, 6))
    w = cp.Variable(6, name="w")
    cost = cp.quad_form(w, f @ f.T + 0.1 * np.eye(6)) - mu @ w
    return cp.Problem(cp.Minimize(cost), [cp.sum(w) == 1, w >= 0]), [mu], [w]


def _equality_qp() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    a, b = cp.Parameter((2, 5), name="A"), cp.Parameter(2, name="b")
    x = cp.Variable(5, name="x")
    return cp.Problem(cp.Minimize(cp.sum_squares(x)), [a @ x == b]), [a, b], [x]


def _total_variation() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    y = cp.Parameter(12, name="y")
    x = cp.Variable(12, name="x")
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - y) + 0.7 * cp.norm1(cp.diff(x)))), [y], [x]


def _inequalities() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    g, h = cp.Parameter((6, 3), name="G"), cp.Parameter(6, name="h")
    x = cp.Variable(3, name="x")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - 1.0)), [g @ x <= h]), [g, h], [x]


def _normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], list[np.ndarray]]:
    return lambda rng: [rng.normal(size=s) for s in shapes]


def _bounds(rng: np.random.Generator) -> list[np.ndarray]:
    low = rng.normal(size=4) - 0.5
    return [rng.normal(size=(4, 4)), rng.normal(size=4), low, low + rng.uniform(0.1, 2.0, size=4)]


CASES = (
    Case("opteq", "forward–backward", _opteq, _normal((5,))),
    Case("lasso", "forward–backward", _lasso, lambda r: [r.normal(size=6), np.array(r.uniform(0.1, 1.0))]),
    Case("box_qp", "forward–backward", _box_qp, _bounds),
    Case("projection", "closed form", _projection, _normal((2, 3))),
    Case("two_variables", "forward–backward", _two_variables, _normal((7,))),
    Case("maximize", "forward–backward", _maximize, _normal((5,))),
    Case("portfolio", "forward–backward", _portfolio, _normal((6,))),
    Case("equality_qp", "Douglas–Rachford", _equality_qp, _normal((2, 5), (2,))),
    Case("total_variation", "closed form", _total_variation, _normal((12,))),
    Case(
        "inequalities", "Douglas–Rachford", _inequalities, lambda r: [r.normal(size=(6, 3)), r.uniform(0.1, 1, size=6)]
    ),
)
