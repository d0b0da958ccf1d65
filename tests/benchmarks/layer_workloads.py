"""Convex layers that users of cvxpylayers, qpth and QPLayer train: each as a CVXPY problem, data, and where it is one
a quadratic program for the peers that take no other.

`scale` multiplies sign constraints: cvxpylayers with MOREAU drops "variable lies in a cone", 2x ≥ 0 it keeps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

F64 = torch.float64


@dataclass(frozen=True, slots=True)
class Quadratic:
    """min ½xᵀPx + qᵀx, Ax = b, Gx ≤ h with batched tensors (B, ...), and the entries of x that are the answer."""

    p: Tensor
    q: Tensor
    a: Tensor
    b: Tensor
    g: Tensor
    h: Tensor
    keep: slice


@dataclass(frozen=True, slots=True)
class Workload:
    """`declare(scale)` is (problem, parameters, outputs); `data(batch, generator)` a tensor for each parameter."""

    name: str
    size: str
    declare: Callable[[float], tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]]
    data: Callable[[int, torch.Generator], list[Tensor]]
    quadratic: Callable[[Sequence[Tensor]], Quadratic] | None = None


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=F64)


def _batched(batch: int, *constants: Tensor) -> list[Tensor]:
    return [c.expand(batch, *c.shape) for c in constants]


def portfolio(n: int = 200, factors: int = 20) -> Workload:
    """max ⟨μ, w⟩ − ‖Fᵀw‖² − Σ d w² on the simplex, μ per sample."""
    rng = np.random.default_rng(1)
    f, d = rng.normal(size=(n, factors)) / np.sqrt(n), rng.uniform(0.01, 0.1, size=n)

    def declare(scale: float) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
        w, mu = cp.Variable(n, name="w"), cp.Parameter(n, name="mu")
        risk = cp.sum_squares(f.T @ w) + cp.sum_squares(cp.multiply(np.sqrt(d), w))
        return cp.Problem(cp.Maximize(mu @ w - risk), [cp.sum(w) == 1, scale * w >= 0]), [mu], [w]

    def quadratic(values: Sequence[Tensor]) -> Quadratic:
        (mu,) = values
        batch, eye = mu.shape[0], torch.eye(n, dtype=F64)
        p = torch.tensor(2 * (f @ f.T + np.diag(d)))
        shared = (p, torch.ones(1, n, dtype=F64), torch.ones(1, dtype=F64), -eye, torch.zeros(n, dtype=F64))
        p, a, b, g, h = _batched(batch, *shared)
        return Quadratic(p, -mu, a, b, g, h, slice(0, n))

    return Workload("portfolio", f"n={n}", declare, lambda k, g: [0.1 * _normal(g, k, n)], quadratic)


def _lasso_quadratic(a: Tensor, b: Tensor, lam: Tensor) -> Quadratic:
    """In [x, t] with −t ≤ x ≤ t."""
    batch, _, n = a.shape
    zero, eye = torch.zeros(batch, n, n, dtype=F64), torch.eye(n, dtype=F64).expand(batch, n, n)
    p = torch.cat([torch.cat([a.mT @ a, zero], 2), torch.cat([zero, 1e-9 * eye], 2)], 1)
    q = torch.cat([-(a.mT @ b[:, :, None]).squeeze(2), lam.reshape(-1, 1).expand(batch, n)], 1)
    g = torch.cat([torch.cat([eye, -eye], 2), torch.cat([-eye, -eye], 2)], 1)
    empty = torch.zeros(batch, 0, 2 * n, dtype=F64), torch.zeros(batch, 0, dtype=F64)
    return Quadratic(p, q, *empty, g, torch.zeros(batch, 2 * n, dtype=F64), slice(0, n))


def lasso(m: int = 100, n: int = 200) -> Workload:
    """min ½‖Ax − b‖² + λ‖x‖₁ with a learned λ, shared, and b per sample."""
    a = np.random.default_rng(2).normal(size=(m, n)) / np.sqrt(m)

    def declare(scale: float) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
        x, b, lam = cp.Variable(n, name="x"), cp.Parameter(m, name="b"), cp.Parameter(nonneg=True, name="lam")
        return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(a @ x - b) + lam * cp.norm1(x))), [b, lam], [x]

    def quadratic(values: Sequence[Tensor]) -> Quadratic:
        b, lam = values
        return _lasso_quadratic(torch.tensor(a).expand(b.shape[0], m, n), b, lam)

    def data(batch: int, g: torch.Generator) -> list[Tensor]:
        return [_normal(g, batch, m), torch.tensor(0.1, dtype=F64)]

    return Workload("LASSO, learned weight", f"{m}x{n}", declare, data, quadratic)


def dictionary(m: int = 100, n: int = 200) -> Workload:
    """The same with a dictionary A per sample."""

    def declare(scale: float) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
        x, a, b = cp.Variable(n, name="x"), cp.Parameter((m, n), name="A"), cp.Parameter(m, name="b")
        return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(a @ x - b) + 0.1 * cp.norm1(x))), [a, b], [x]

    def data(batch: int, g: torch.Generator) -> list[Tensor]:
        return [_normal(g, batch, m, n) / m**0.5, _normal(g, batch, m)]

    weight = torch.tensor(0.1, dtype=F64)
    return Workload(
        "LASSO, dictionary per sample",
        f"{m}x{n}",
        declare,
        data,
        lambda values: _lasso_quadratic(values[0], values[1], weight),
    )


def ball(n: int = 100) -> Workload:
    """min ½‖Ax − b‖² over ‖x‖ ≤ r, a second-order cone program, with b per sample and r learned."""
    a = np.random.default_rng(3).normal(size=(2 * n, n)) / np.sqrt(2 * n)

    def declare(scale: float) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
        x, b, r = cp.Variable(n, name="x"), cp.Parameter(2 * n, name="b"), cp.Parameter(nonneg=True, name="r")
        goal = 0.5 * cp.sum_squares(a @ x - b)
        inside = cp.norm2(x) <= r if scale == 1.0 else cp.norm2(scale * x) <= scale * r
        return cp.Problem(cp.Minimize(goal), [inside]), [b, r], [x]

    def data(batch: int, g: torch.Generator) -> list[Tensor]:
        return [_normal(g, batch, 2 * n), torch.tensor(1.0, dtype=F64)]

    return Workload("least squares in a ball", f"n={n}", declare, data)


def transport(n: int = 16) -> Workload:
    """min ⟨C, X⟩ + ε Σ X log X with row sums a and column sums 1/n, costs per sample."""
    rows = np.random.default_rng(4).uniform(0.5, 1.5, size=n)
    rows /= rows.sum()

    def declare(scale: float) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
        x, c = cp.Variable((n, n), name="X"), cp.Parameter((n, n), name="C")
        goal = cp.sum(cp.multiply(c, x)) - 0.1 * cp.sum(cp.entr(x))
        return cp.Problem(cp.Minimize(goal), [cp.sum(x, axis=1) == rows, cp.sum(x, axis=0) == 1 / n]), [c], [x]

    def data(batch: int, g: torch.Generator) -> list[Tensor]:
        return [torch.rand(batch, n, n, generator=g, dtype=F64)]

    return Workload("entropic transport", f"{n}x{n}", declare, data)


def control(horizon: int = 20) -> Workload:
    """Model predictive control of a double integrator with bounded force, from a state per sample."""
    step, push = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.005], [0.1]])
    n = 2 * (horizon + 1) + horizon

    def declare(scale: float) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
        x, u, start = cp.Variable((2, horizon + 1), name="x"), cp.Variable((1, horizon), name="u"), cp.Parameter(2)
        goal = cp.sum_squares(x) + 0.1 * cp.sum_squares(u)
        rules = [x[:, 1:] == step @ x[:, :-1] + push @ u, x[:, 0] == start, scale * u <= scale, -scale <= scale * u]
        return cp.Problem(cp.Minimize(goal), rules), [start], [u]

    def quadratic(values: Sequence[Tensor]) -> Quadratic:
        (start,) = values
        batch = start.shape[0]
        weights = np.concatenate([np.full(2 * (horizon + 1), 2.0), np.full(horizon, 0.2)])
        a = np.zeros((2 * (horizon + 1), n))
        a[:2, :2] = np.eye(2)
        for t in range(horizon):
            rows, now, then = slice(2 * t + 2, 2 * t + 4), slice(2 * t, 2 * t + 2), slice(2 * t + 2, 2 * t + 4)
            a[rows, then], a[rows, now] = np.eye(2), -step
            a[rows, 2 * (horizon + 1) + t] = -push[:, 0]
        force = np.hstack([np.zeros((horizon, 2 * (horizon + 1))), np.eye(horizon)])
        shared = [torch.tensor(t) for t in (np.diag(weights), a, np.vstack([force, -force]), np.ones(2 * horizon))]
        p, a_, g, h = _batched(batch, *shared)
        b = torch.cat([start, torch.zeros(batch, 2 * horizon, dtype=F64)], 1)
        return Quadratic(p, torch.zeros(batch, n, dtype=F64), a_, b, g, h, slice(2 * (horizon + 1), n))

    return Workload("predictive control", f"T={horizon}", declare, lambda k, g: [2 * _normal(g, k, 2)], quadratic)


def workloads(*, small: bool) -> list[Workload]:
    """All of them, at the sizes that are published or small."""
    if small:
        return [portfolio(20, 4), lasso(8, 12), dictionary(8, 12), ball(8), transport(4), control(6)]
    return [portfolio(), lasso(), dictionary(), ball(), transport(), control()]
