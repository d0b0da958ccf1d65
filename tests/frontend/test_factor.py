"""B with BᵀB = P, against the product itself."""

import cvxpy as cp
import numpy as np
import pytest

from opteq_cvx.frontend.factor import factor
from opteq_cvx.frontend.hoist import hoist
from opteq_cvx.ir.param import Apply, Leaf, ParamExpr, const
from opteq_cvx.ir.program import Origin
from tests.frontend import interpret
from tests.frontend.test_structure import scope

G, P = cp.Parameter((3, 2), name="G"), cp.Parameter((3, 3), name="P", PSD=True)
VALUES = {"G": np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]]), "P": np.diag([1.0, 4.0, 9.0]) + 0.5}
HERE = Origin("objective[0]", "here")
THIN = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 1.0]])


def of(expr: cp.Expression) -> ParamExpr:
    return hoist(expr, scope(G, P))


CASES = {
    "constant": const(VALUES["P"]),
    "of low rank": const(THIN.T @ THIN),
    "zero": const(np.zeros((3, 3))),
    "G Gᵀ": of(G @ G.T),
    "Gᵀ G": of(G.T @ G),
    "declared": of(P),
    "a product that is no square": of(P @ np.eye(3)),
}


@pytest.mark.parametrize("name", CASES)
def test_its_square_is_the_matrix(name: str) -> None:
    found, wanted = interpret.param(factor(CASES[name], HERE), VALUES), interpret.param(CASES[name], VALUES)
    np.testing.assert_allclose(found.T @ found, wanted, atol=1e-12)


def test_it_has_as_many_rows_as_the_rank_and_costs_nothing_where_it_is_declared() -> None:
    assert [factor(CASES[n], HERE).shape for n in ("of low rank", "zero")] == [(2, 3), (0, 3)]
    for name in ("G Gᵀ", "Gᵀ G"):
        kept = factor(CASES[name], HERE)
        assert kept in CASES[name].args  # type: ignore[attr-defined]
    assert isinstance(factor(Leaf("P", (3, 3), CASES["declared"].stage), HERE), Apply)


def test_a_rounding_error_below_zero_is_no_negative_eigenvalue() -> None:
    found = factor(const(THIN.T @ THIN - 1e-14 * np.eye(3)), HERE)
    assert found.shape == (2, 3)
