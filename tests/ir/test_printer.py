"""Programs as text: golden samples, stable from run to run, free of ids."""

from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest

import opteq_cvx as oc
from opteq_cvx.frontend import read
from opteq_cvx.ir import printer
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.linmap import (
    Adjoint,
    Broadcast,
    Gather,
    Kron,
    LeftMul,
    Permute,
    Reshape,
    Sum,
    compose,
    gather,
)
from opteq_cvx.ir.param import Apply, Leaf, Stage, add, const, multiply, neg
from tests.ir import golden

A, b, lam = (Leaf(n, s, Stage.WEIGHT) for n, s in [("A", (2, 3)), ("b", (2,)), ("lam", ())])


def opteq() -> cp.Problem:
    x = oc.Input(64, name="x")
    W = oc.Weight((100, 100), name="W", norm=0.95, seed=0)
    U, bias = oc.Weight((100, 64), name="U", seed=1), oc.Weight(100, name="b", seed=2)
    strength = oc.Weight(name="lam", nonneg=True, init=0.01)
    u = cp.Variable(100, nonneg=True, name="u")
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(100) - W @ W.T)) - (U @ x + bias) @ u
    return cp.Problem(cp.Minimize(energy + strength * cp.norm1(u)))


def lasso() -> cp.Problem:
    D, y = oc.Weight((4, 6), name="D", seed=0), oc.Input(4, name="y")
    strength = oc.Input(name="lam", nonneg=True)
    x = cp.Variable(6, name="x")
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(D @ x - y) + strength * cp.norm1(x)), [x[:3] >= 0])


def portfolio() -> cp.Problem:
    mu, F = oc.Input(5, name="mu"), oc.Weight((5, 2), name="F", seed=0)
    w = cp.Variable(5, name="w", nonneg=True)
    risk = cp.sum_squares(F.T @ w) + cp.norm(w)
    return cp.Problem(cp.Maximize(mu @ w - risk + 1), [cp.sum(w) == 1, w <= 0.4])


def denoise() -> cp.Problem:
    y = oc.Input((3, 4), name="y")
    weight = oc.Weight(3, name="edge", nonneg=True, init=0.5)
    X = cp.Variable((3, 4), name="X")
    rows = cp.multiply(weight[:, None], cp.abs(X[:, 1:] - X[:, :-1]))
    return cp.Problem(cp.Minimize(cp.sum_squares(X - y) + cp.sum(rows) + cp.sum(cp.norm(X.T, axis=0))))


PROBLEMS: tuple[Callable[[], cp.Problem], ...] = (opteq, lasso, portfolio, denoise)


@pytest.mark.parametrize("build", PROBLEMS, ids=lambda build: build.__name__)
def test_program_is_its_golden_text(build: Callable[[], cp.Problem]) -> None:
    golden.check(build.__name__, printer.program(read(build()).program))


@pytest.mark.parametrize("build", PROBLEMS, ids=lambda build: build.__name__)
def test_text_is_stable(build: Callable[[], cp.Problem]) -> None:
    assert printer.program(read(build()).program) == printer.program(read(build()).program)


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (add(lam, neg(multiply(lam, lam))), "lam - lam * lam"),
        (multiply(add(lam, const(1.0)), lam), "(lam + 1) * lam"),
        (Apply("matmul", (A, Apply("transpose", (A,), (3, 2))), (2, 2)), "A @ A.T"),
        (Apply("transpose", (add(A, const(1.0)),), (3, 2)), "(A + 1).T"),
        (Apply("divide", (const(1.0), add(lam, const(2.0))), ()), "1 / (lam + 2)"),
        (Apply("norm1", (A,), (3,), FrozenDict(axis=0)), "norm1(A, axis=0)"),
        (const(np.eye(3)), "I[3]"),
        (const([1.0, 2.5]), "[1, 2.5]"),
        (const(np.arange(12.0).reshape(3, 4)), "const[3, 4]"),
        (const(np.full((3, 4), -1.5)), "-1.5"),
        (const(np.inf), "inf"),
    ],
)
def test_parameter_expressions(expr: object, text: str) -> None:
    assert printer.param(expr) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("m", "text"),
    [
        (LeftMul(A, (3,)), "A @ x"),
        (compose(Sum((0,), (2,)), LeftMul(A, (3,))), "sum(A @ x)"),
        (gather(np.arange(1, 3), (5,)), "x[1:3]"),
        (gather(np.array([0, 2, 4]), (5,)), "x[0:5:2]"),
        (gather(np.array([4, 0]), (5,)), "x[4, 0]"),
        (gather(np.arange(12).reshape(3, 4)[1:, ::3], (3, 4)), "x[1:3, 0:4:3]"),
        (gather(np.arange(12).reshape(3, 4)[:, 2], (3, 4)), "x[:, 2]"),
        (gather(np.array(7), (3, 4)), "x[1, 3]"),
        (Gather(np.array([0, -1]), (5,)), "place(x, [2])"),
        (Permute((1, 0), (2, 3)), "x.T"),
        (Reshape((2, 3), (6,), "F"), "reshape(x, [6], F)"),
        (Broadcast((), (3,)), "broadcast(x, [3])"),
        (Adjoint(LeftMul(A, (3,))), "adjoint[A @ ·](x)"),
        (Kron(A, (2, 2), "right"), "kron(x, A)"),
    ],
)
def test_linear_maps(m: object, text: str) -> None:
    assert printer.linear_map(m) == text  # type: ignore[arg-type]


def test_deep_expressions_stay_short() -> None:
    expr: object = lam
    for _ in range(40):
        expr = Apply("multiply", (expr, expr), ())  # type: ignore[arg-type]
    assert len(printer.param(expr)) < 4 * printer.LIMIT  # type: ignore[arg-type]
