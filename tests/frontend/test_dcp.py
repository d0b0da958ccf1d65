"""What is not convex is refused in words: the smallest offending expression, its rule, and a fix."""

from typing import Any

import cvxpy as cp
import pytest

import opteq_cvx as oc
from opteq_cvx.errors import NotConvexError
from opteq_cvx.frontend import read

CASES = (
    (
        "Minimize(lam * norm1(x) + sum(x))",
        r'"lam \* norm1\(x\)" scales a convex.*lam, whose sign.*nonneg=True',
    ),
    ("Minimize(sum(multiply(x, y)))", r'"multiply\(x, y\)" multiplies two expressions.*cp.square'),
    ("Minimize(sum(x / y))", r'"x / y" divides.*inv_pos'),
    ("Minimize(quad_form(x, Q))", r"matrix not known to be positive semidefinite, Q.*psd_wrap"),
    ("Minimize(sum(log(x)))", r"objective of Minimize is concave.*maximize"),
    ("Maximize(norm1(x))", r"objective of Maximize is convex.*minimize"),
    ("Minimize(norm1(x) + sum(sqrt(x)))", r'adds the convex "norm1\(x\)" and the concave'),
    (
        "Minimize(3 + exp(sqrt(norm1(x))))",
        r'"sqrt\(norm1\(x\)\)" composes the concave power, nondecreasing',
    ),
    ("Minimize(square(sum_squares(x) - 1))", r"composes the convex power, not monotone"),
    ("Minimize(sum(power(x, k)))", r'"x\*\*k" has a parameter as exponent.*number'),
    ("Minimize(sum(xexp(x)))", r"neither convex nor concave of this argument.*the sign it needs"),
)
CONSTRAINTS = (
    ("norm1(x) >= 1", r'constraint\[1\] "norm1\(x\) >= 1": the smaller side.*is concave.*larger'),
    ("norm1(x) == 1", r"argument of this constraint is convex.*affine.*inequality"),
    ("SOC(norm1(x), y)", r"argument of this constraint is convex.*affine"),
    ("x[0] * x[1] <= 1", r'"x\[0\] \* x\[1\]" multiplies'),
)


def world() -> dict[str, Any]:
    return {
        **{k: getattr(cp, k) for k in dir(cp) if not k.startswith("_")},
        "x": cp.Variable(3, name="x"),
        "y": cp.Variable(3, name="y"),
        "lam": oc.Weight(name="lam", seed=0),
        "Q": oc.Weight((3, 3), name="Q", symmetric=True, seed=0),
        "k": oc.Weight(name="k", pos=True, seed=0),
    }


@pytest.mark.filterwarnings("ignore:Forming a nonconvex expression")
@pytest.mark.parametrize(("text", "words"), CASES)
def test_objective_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(NotConvexError, match=words):
        read(cp.Problem(eval(text, world())))


@pytest.mark.filterwarnings("ignore:Forming a nonconvex expression")
@pytest.mark.parametrize(("text", "words"), CONSTRAINTS)
def test_constraint_is_refused_in_words(text: str, words: str) -> None:
    names = world()
    with pytest.raises(NotConvexError, match=words):
        read(cp.Problem(cp.Minimize(sum(names["x"])), [names["x"] >= 0, eval(text, names)]))
