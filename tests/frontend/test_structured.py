"""Which spellings of structured functions are recognized directly: a text and the atoms of the compiled program.

Directly: the program has the user's variables only. What goes through auxiliary variables and cones is listed apart,
so that a spelling that becomes direct moves up here.
"""

import cvxpy as cp
import numpy as np
import pytest

from opteq_cvx import passes
from opteq_cvx.frontend import read

RNG = np.random.default_rng(0)
x, X, s = cp.Variable(6, name="x"), cp.Variable((4, 5), name="X"), cp.Variable(name="s")
S = cp.Variable((3, 3), name="S", symmetric=True)
D = np.zeros((4, 6))
D[range(4), [0, 1, 2, 0]], D[range(4), [1, 2, 5, 4]] = 1.0, -1.0
NAMES = {
    **vars(cp), "np": np, "x": x, "X": X, "s": s, "S": S, "D": D, "A": RNG.normal(size=(7, 6)),
    "B": RNG.normal(size=(4, 5)), "y": np.sign(RNG.normal(size=7)), "a": cp.Parameter(6, name="a"),
    "lam": cp.Parameter(nonneg=True, name="lam"), "t": cp.Variable(nonneg=True, name="t"),
    "P": cp.Parameter((6, 6), PSD=True, name="P"),
}  # fmt: skip

DIRECT = {
    # total variation
    "tv(x)": "tv",
    "norm1(diff(x))": "tv",
    "norm(x[1:] - x[:-1], 1)": "tv",
    "sum(abs(diff(x)))": "tv",
    "norm1(diff(X, axis=0))": "tv",
    "tv(X)": "norm2",
    "sum(abs(X[1:, :] - X[:-1, :])) + sum(abs(X[:, 1:] - X[:, :-1]))": "abs abs",
    "norm1(diff(x, 2))": "abs",
    "norm1(x[0] - x[1:])": "abs",
    "norm1(x) + 0.5 * norm1(diff(x))": "fused_lasso",
    "lam * tv(x) + norm1(x)": "fused_lasso",
    # sums of largest
    "cvar(x, 0.8)": "sum_largest",
    "cvar(A @ x, 0.8)": "sum_largest",
    "sum_largest(A @ x, 3)": "sum_largest",
    "-sum_smallest(x, 2)": "sum_largest",
    "sum_largest(abs(x), 2)": "sorted_l1",
    "s + sum(pos(A @ x - s)) / 2": "linear pos",
    "lambda_sum_largest(S, 2)": "lambda_sum_largest symmetric",
    "-lambda_sum_smallest(S, 2)": "lambda_sum_largest symmetric",
    "dotsort(abs(x), np.arange(6))": "sorted_l1",
    "max(x) - min(x)": "max max",
    # pieces of one number
    "sum(scalene(x, 0.3, 0.7))": "hinges linear",
    "sum(0.3 * pos(x) + 0.7 * neg(x))": "hinges linear",
    "sum(maximum(0.3 * x, -0.7 * x))": "linear pos",
    "sum(0.5 * abs(x) + 0.2 * x)": "abs linear",
    "sum(maximum(abs(x) - 1, 0))": "deadzone",
    "sum(abs(x - 1) + abs(x + 1))": "hinges linear",
    "sum(maximum(x, 2 * x, -1))": "max",
    "sum(pos(1 - multiply(y, A @ x)))": "pos",
    "sum(maximum(0, 1 - x))": "pos",
    "sum(square(pos(1 - x)))": "square_pos",
    "sum_squares(pos(1 - x))": "square_pos",
    "sum(pos(1 - x)**2)": "square_pos",
    # norms and groups
    "lam * norm1(x) + (1 - 0.3) * sum_squares(x)": "abs square",
    "sum(norm(X, axis=1))": "norm2",
    "sum(norm(X, 2, axis=0))": "norm2",
    "mixed_norm(X, 2, 1)": "norm2",
    "mixed_norm(X, np.inf, 1)": "norm_inf",
    "sum(norm(X, 1, axis=0))": "abs",
    "norm(x[:4]) + norm(x[2:])": "norm2 norm2",
    "norm(x[[0, 1]]) + norm(x[[1, 2, 3]])": "norm2 norm2",
    "max(abs(x))": "norm_inf",
    "norm(x, np.inf)": "norm_inf",
    "norm(x[1:] - x[:-1])": "norm2",
    "norm1(multiply(np.arange(1, 7), x))": "abs",
    "norm(X, 'fro')": "norm2",
    "pnorm(x, 3)": "pnorm",
    "norm(x - a, 1.5)": "pnorm",
    "lam * pnorm(X, 4)": "pnorm",
    "normNuc(X - B)": "norm_nuc",
    "norm(X, 2)": "sigma_max",
    "std(x)": "norm2",
    "norm(x, 2)**2": "square",
    "sum(abs(x)**3)": "power",
    "sum(power(abs(x), 1.5))": "power",
    # smooth losses
    "sum(huber(x))": "huber",
    "sum(huber(x, lam))": "huber",
    "sum(huber(x - a, 0.5))": "huber",
    "sum(logistic(-multiply(y, A @ x)))": "logistic",
    "sum(log_sum_exp(X, axis=1))": "log_sum_exp",
    "log_sum_exp(hstack([0, x]))": "log_sum_exp",
    "sum(kl_div(1, x))": "kl_div",
    "sum(exp(x) - multiply(a, x))": "exp linear",
    "trace(S) - log_det(S)": "linear neg_log_det symmetric",
    "-geo_mean(x)": "neg_geo_mean",
    "norm(x)**3": "radial",
    "matrix_frac(x, P)": "square",
    "matrix_frac(X - B, Constant(np.diag([1.0, 2.0, 3.0, 4.0])))": "square",
    "perspective(sum_squares(x - 1), t)": "nonneg quad_over_lin",
    "perspective(-sum(log(x)), t)": "nonneg rel_entr",
    "perspective(norm(x - 2) + 3, t)": "linear nonneg norm2",
    "sum(huber(norm(X, axis=1), 0.5))": "radial",
    "exp(norm(x))": "radial",
    "norm(X, 1)": "max_norm",
    "norm(X, 'inf')": "max_norm",
    "max(norm(X, 1, axis=1))": "max_norm",
    "mixed_norm(X, 2, np.inf)": "max_norm",
    "sum(xexp(pos(x)))": "xexp",
    "-harmonic_mean(x)": "neg_pnorm",
    "-pnorm(X, 0.5)": "neg_pnorm",
    "inv_prod(x)": "inv_prod",
    "inv_pos(geo_mean(x))": "inv_prod",
}

CONIC = (
    "matrix_frac(x[:3], S)",
    "power(norm1(x), 3)",
    "sum(pos(abs(x) + abs(x[::-1])))",  # no dead zone: two functions in it
    "sum(quad_over_lin(X, t, axis=0))",
)


def compiled(text: str) -> tuple[str, bool]:
    """The atoms of the program, sorted, and whether it has the user's variables only."""
    problem = cp.Problem(cp.Minimize(eval(text, dict(NAMES))))
    program = passes.run(read(problem, problem.parameters()).program)
    own = {v.name() for v in problem.variables()}
    return " ".join(sorted(t.atom for t in program.terms)), {v.name for v in program.variables} <= own


@pytest.mark.parametrize("text", DIRECT)
def test_direct(text: str) -> None:
    assert compiled(text) == (DIRECT[text], True)


def test_total_variation_of_a_path_is_exact_and_of_a_tree_a_term_of_its_edges() -> None:
    """The edges of D are the path 4 − 0 − 1 − 2 − 5; one more at 1 makes a tree of it."""
    assert compiled("norm1(D @ x)") == ("tv", True)
    assert compiled("norm1(vstack([D, np.eye(6)[1] - np.eye(6)[3]]) @ x)") == ("abs", True)


@pytest.mark.parametrize("text", CONIC)
def test_through_cones(text: str) -> None:
    assert not compiled(text)[1]
