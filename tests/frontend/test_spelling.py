"""Expressions are quoted as people write them; what is written, read back by CVXPY, is the same function."""

import cvxpy as cp
import numpy as np
import pytest

import opteq_cvx as oc
from opteq_cvx.frontend.spelling import spoken
from tests.frontend import cases

A, B = np.arange(15.0).reshape(3, 5), np.arange(25.0).reshape(5, 5)
v, w, X = cp.Variable(5, name="v"), cp.Variable(5, name="w"), cp.Variable((3, 4), name="X")
S, s = cp.Variable((3, 3), name="S", symmetric=True), cp.Variable(name="s")
p, lam, D = cp.Parameter(5, name="p"), cp.Parameter(name="lam", nonneg=True), cp.Parameter((3, 5), name="D")
q, Q = cp.Parameter(3, name="q"), cp.Parameter((5, 5), name="Q", PSD=True)

WORDS = (
    # as written, and so quoted
    "v - D.T @ q", "-(v + w)", "-v", "v - 1", "1 - v", "2 * v", "v / 2", "lam * norm1(v)", "v[1:]", "v[::2]", "v[-1]",
    "X[:, 0]", "X[0:2, 1]", "X[1]", "X[:, [0, 2]]", "(v + w)[1:]", "(v - w)[1:4] - (v - w)[0:3]", "X.T", "(X + 1).T",
    "v**lam", "norm2(v)", "norm2(X, axis=1)", "pnorm(v, 3)", "norm1(v - p)", "norm_inf(v)", "normNuc(X)", "sum(v)",
    "sum(X, axis=0)", "sum_squares(D @ v - q)", "quad_over_lin(v, s)", "v**2", "(v - w)**3", "inv_pos(v)",
    "sqrt(v)", "huber(v)", "huber(v, 0.5)", "huber(v, lam)", "maximum(v, 0)", "sum_largest(v, 2)", "max(v)",
    "-log_det(S)", "log_sum_exp(v)", "quad_form(v, Q)", "quad_form(v, psd_wrap(I[5] - Q))", "kl_div(v, 1)",
    "multiply(p, D.T @ q)", "lam * D @ v", "D @ v * 2", "reshape(X, 12, order='C')", "reshape(v, (5, 1), order='C')",
    "2 * reshape(v, (5, 1), order='C')", "reshape(v, (5, 1), order='C')[1:]",
    "diag(v)", "trace(S)", "hstack([v, w])", "geo_mean(v)", "const[3, 5] @ v", "[1, 2, 3] @ q", "cumsum(v, axis=0)",
    "-(v - w) @ p", "sum(entr(v))", "v >= 0", "v <= p", "D @ v == q", "sum(v) == 1", "S >> 0", "SOC(s, v)",
    "(1+2j) * v", "(0+0.5j) * v",
)  # fmt: skip

CODE = {"I[5]": "np.eye(5)", "const[3, 5]": "A", "[1, 2, 3]": "np.array([1, 2, 3])"}
NAMES = {k: getattr(cp, k) for k in dir(cp) if not k.startswith("_")} | {
    "np": np, "v": v, "w": w, "X": X, "S": S, "s": s, "p": p, "lam": lam, "D": D, "q": q, "Q": Q, "A": A,
    "abs": cp.abs, "max": cp.max, "sum": cp.sum,
}  # fmt: skip


WORLD = cases.world()


@pytest.mark.parametrize("words", WORDS)
def test_what_was_written_is_what_is_quoted(words: str) -> None:
    code = words
    for shown, meant in CODE.items():
        code = code.replace(shown, meant)
    assert spoken(eval(code, dict(NAMES))) == words


def test_units_and_convolutions_keep_their_options() -> None:
    image, kernel = cp.Variable((1, 4, 4), name="image"), oc.Weight((2, 1, 3, 3), name="kernel")
    assert spoken(oc.conv2d(image, kernel, padding=1)) == "conv2d(image, kernel, padding=1)"
    two = cp.Variable((2, 4, 4), name="two")
    assert spoken(oc.conv2d(two, kernel, groups=2)) == "conv2d(two, kernel, groups=2)"
    assert spoken(oc.conv2d(image, kernel, stride=(1, 2))) == "conv2d(image, kernel, stride=(1, 2))"
    assert spoken(2 * oc.conv2d(image, kernel, padding=1)[0]) == "2 * conv2d(image, kernel, padding=1)[0]"
    assert spoken(oc.activation("relu")(v)) == "sum(activation('relu')(v))"


def test_what_stands_for_a_variable_is_quoted_without_its_mark() -> None:
    assert spoken(2 * cp.Parameter(name="@x0")) == "2 * x0"
    assert spoken(cp.Variable(name="two  words") + 1) == "two  words + 1"


def test_zero_summands_are_not_said() -> None:
    assert spoken(oc.priors.ridge(v)) == "0.5 * sum_squares(v)"
    assert spoken(v + np.zeros(5)) == "v"
    assert spoken(cp.sum(0 * v + np.zeros(5))) == "sum(0 * v)"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", [*cases.MINIMIZE, *cases.AFFINE])
def test_what_is_quoted_means_the_same(text: str) -> None:
    """Read back by CVXPY, the words have the value of the expression; constants without words excepted."""
    expr = eval(text, WORLD)
    said = spoken(expr)
    assert not any(word in said for word in ("Promote", "Approx", "+ -", "None, False"))
    if any(f"{k}[" in said for k in ("I", "const", "sparse")) or "…" in said or "perspective" in said:
        return
    np.testing.assert_allclose(eval(said, WORLD).value, expr.value, rtol=1e-4)
