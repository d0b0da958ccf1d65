"""Convex programs that need the conic route, as text over one set of variables and inputs."""

from typing import Any

import cvxpy as cp
import numpy as np

import opteq_cvx as oc

NEAR = " + 0.1 * sum_squares(x - b)"
NEAR_S = " + 0.1 * sum_squares(S - M)"

CASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("sum_squares(x - b)", ("log_sum_exp(x) <= 1",)),
    ("log_sum_exp(A @ x + b)" + NEAR, ()),
    ("sum(x)", ("sum_squares(x - b) <= s", "s <= 2")),
    ("s + sum_squares(x - b)", ("norm(x) + norm1(x - b) <= s",)),
    ("square(norm(x - b) + norm(x + 1))", ()),
    ("square(pos(norm(x - b) - 1))" + NEAR, ()),
    ("norm(x - b) * lam + norm(x, 1)", ("sum(abs(x)) <= 1 + s", "s <= 1")),
    ("exp(norm(x - b) - 1)" + NEAR, ()),
    ("logistic(max(x) + square(x[0]))" + NEAR, ()),
    ("-geo_mean(x + 3)" + NEAR, ("x >= -2.5",)),
    ("sum_squares(x - b)", ("geo_mean(x) >= 1",)),
    ("sum_squares(x - b)", ("geo_mean(x, [1, 2, 0, 1]) >= 1 + s**2",)),
    ("-log_det(S + 4 * np.eye(3))" + NEAR_S, ()),
    ("sum_squares(S - M)", ("log_det(S) >= 1",)),
    ("sum_squares(S - M)", ("lambda_max(S) <= 1", "lambda_min(S) >= -1")),
    ("lambda_max(S) + 0.1 * sum_squares(S - M)", ()),
    ("exp(lambda_max(S))" + NEAR_S, ("S[0, 0] >= 0",)),
    ("sum_squares(S - M)", ("lambda_sum_largest(S, 2) <= 1",)),
    ("sum_squares(X - M)", ("normNuc(X) <= 1",)),
    ("sum_squares(X - M)", ("sigma_max(X) <= 0.5 + s", "s <= 0.2")),
    ("normNuc(X) + sigma_max(X) + sum_squares(X - M)", ()),
    ("matrix_frac(x, S4) + trace(S4)" + NEAR, ("S4 >> 0.2 * np.eye(4)",)),
    ("sum_squares(S - M)", ("tr_inv(S) <= 5",)),
    ("sum_squares(x - b)", ("pnorm(x, 3) <= 1",)),
    ("pnorm(x - b, 1.5) + 0.1 * sum_squares(x)", ()),
    ("sum_squares(x - b)", ("pnorm(x, 0.5) >= 3",)),
    ("sum(cummax(x - b))" + NEAR, ()),
    ("sum_squares(x - b)", ("cummax(x)[3] <= 0.5", "sum(cummax(x)) <= 1")),
    ("sum_squares(x - b)", ("sum(kl_div(x, w)) <= 0.5",)),
    ("sum(kl_div(y, w)) + sum_squares(x - b)", ("sum(rel_entr(x, y)) <= 0.2",)),
    ("sum_squares(x - b)", ("entr(x) >= 0.1",)),
    ("sum_squares(x - b)", ("sum(entr(x)) >= 1", "sum(x) == 2")),
    ("quad_over_lin(x - b, s) + s", ("s >= 0.5",)),
    ("sum_squares(x - b) + s", ("quad_over_lin(x, s + 1) <= 2", "s <= 3")),
    ("sum_squares(X - M) + lam * tv(X)", ()),
    ("sum_squares(x - b)", ("quad_form(x, P) <= 1",)),
    ("sum_squares(x - b)", ("quad_form(x, psd_wrap(A @ A.T)) <= 1 + s", "s <= 0.5")),
    ("sum_squares(x - b)", ("sum(sqrt(x)) >= 3",)),
    ("sum_squares(x - b)", ("sum(exp(x)) <= 4",)),
    ("sum_squares(x - b)", ("sum(log(x)) >= 1", "log(x[0]) >= x[1] - 3")),
    ("sum_squares(x - b)", ("sum(huber(x, lam)) <= 1",)),
    ("sum_squares(x - b)", ("sum(inv_pos(x)) <= 3",)),
    ("sum_squares(x - b)", ("sum(power(x, 3)) <= 1", "sum(power(x, 1.5)) <= 1")),
    ("sum_squares(x - b)", ("sum_largest(x, 2) <= lam", "max(x) - min(x) <= 1")),
    ("sum_squares(x - b)", ("sum(logistic(A @ x)) <= 4",)),
    ("sum_squares(x - b)", ("sum(xexp(pos(x))) <= 0.5",)),
    ("sum_squares(x - b)", ("dotsort(x, [0, 0, 1, 2]) <= 1",)),
    ("-von_neumann_entr(S)" + NEAR_S, ()),
    ("inv_pos(sqrt(x[0])) + exp(square(x[1]))" + NEAR, ()),
    ("maximum(norm(x - b), square(x[0]), 1)" + NEAR, ()),
    ("sum(maximum(abs(x - b), square(x))) + lam * max(abs(x) + y) + sum_squares(y)", ()),
    ("std(x - b) + var(x) + 0.1 * sum_squares(x)", ("std(x) <= 0.3",)),
    ("-harmonic_mean(x)" + NEAR, ("x <= 3",)),
    ("sum_squares(x - b)", ("sum(norm(X, axis=1)) <= lam", "X[0, :] == x[:3]")),
    ("-min(hstack([sqrt(x[0]), log(x[1]), geo_mean(x[2:])]))" + NEAR, ()),
)
"""(objective to minimize, constraints)."""


def build(objective: str, constraints: tuple[str, ...]) -> tuple[cp.Problem, list[cp.Parameter]]:
    """The problem of a case and the inputs that occur in it."""
    rng = np.random.default_rng(0)
    names: dict[str, Any] = {k: getattr(cp, k) for k in dir(cp) if not k.startswith("_")}
    inputs = {
        "b": oc.Input(4, name="b"),
        "w": oc.Input(4, name="w", nonneg=True),
        "lam": oc.Input(name="lam", nonneg=True),
        "A": oc.Input((4, 4), name="A"),
        "P": oc.Input((4, 4), name="P", PSD=True),
        "M": oc.Input((3, 3), name="M"),
    }
    variables = {
        "x": cp.Variable(4, name="x"),
        "y": cp.Variable(4, name="y"),
        "s": cp.Variable(name="s"),
        "X": cp.Variable((3, 3), name="X"),
        "S": cp.Variable((3, 3), name="S", symmetric=True),
        "S4": cp.Variable((4, 4), name="S4", symmetric=True),
    }
    names |= inputs | variables | {"np": np, "rng": rng}
    cost = eval(objective, names)
    problem = cp.Problem(cp.Minimize(cost), [eval(c, names) for c in constraints])
    used = {id(p) for p in problem.parameters()}
    return problem, [p for p in inputs.values() if id(p) in used or ("huber" in str(constraints) and p.name() == "lam")]


def draw(inputs: list[cp.Parameter], rng: np.random.Generator) -> list[np.ndarray]:
    """Values of the inputs of one sample."""
    half = rng.normal(size=(4, 4))
    values = {
        "b": rng.normal(size=4) + 0.5,
        "w": rng.uniform(0.5, 2.0, size=4),
        "lam": rng.uniform(0.5, 1.5),
        "A": rng.normal(size=(4, 4)),
        "P": half @ half.T + 0.1 * np.eye(4),
        "M": rng.normal(size=(3, 3)) + np.eye(3),
    }
    return [np.asarray(values[p.name()]) for p in inputs]
