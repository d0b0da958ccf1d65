"""A heavy square that is nearly 0 at the solution leaves a light norm its say: its gradient counts, not the gradient's
parts Px and q, which cancel."""

import cvxpy as cp
import numpy as np
import pytest

import opteq_cvx as oc

SPLITTINGS = {"Davis–Yin": oc.DavisYin(), "Douglas–Rachford": oc.DouglasRachford(), "PDHG": oc.PDHG()}


def solved(problem: cp.Problem, x: cp.Variable, splitting: oc.DavisYin | oc.DouglasRachford | oc.PDHG) -> str:
    """Check that the optimum at a tolerance of 1e-8 is that of Clarabel; the plan."""
    layer = oc.compile(problem, outputs=[x], splitting=splitting).double()
    solution = layer.solve(tolerance=1e-8)
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    best = float(problem.value)
    x.value = solution.values[0].numpy()
    assert solution.status.all_converged
    assert float(problem.objective.value) == pytest.approx(best, abs=1e-6, rel=0.0)
    return repr(layer.plan)


@pytest.mark.parametrize("name", SPLITTINGS)
def test_a_heavy_square(name: str) -> None:
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(5, 5)))[0] for _ in range(2))
    heavy = left @ np.diag([4e3, 4e2, 10.0, 0.03, 0.01]) @ right
    x, c = cp.Variable(5, name="x"), np.array([-0.05, 0.9, 0.02, -0.45, 2.1])
    problem = cp.Problem(cp.Minimize(6e-4 * cp.norm_inf(x) + 0.1 * cp.sum_squares(heavy @ x - heavy @ c)))
    assert solved(problem, x, SPLITTINGS[name]).startswith(f"plan: {name}\n")


def test_few_heavy_rows_by_woodbury() -> None:
    rng = np.random.default_rng(0)
    rows = np.diag([4e3, 4e2]) @ np.linalg.qr(rng.normal(size=(12, 2)))[0].T
    x, c = cp.Variable(12, name="x"), rng.normal(size=12)
    squares = 0.1 * cp.sum_squares(rows @ x - rows @ c) + 1e-5 * cp.sum_squares(x - c)
    problem = cp.Problem(cp.Minimize(6e-4 * cp.norm_inf(x) + squares))
    assert "(Woodbury)" in solved(problem, x, oc.DouglasRachford(factor="woodbury"))


@pytest.mark.parametrize("condition", [1e4, 1e6])
def test_what_rounding_leaves_of_a_gradient_does_not_count(condition: float) -> None:
    """A least squares fit far out, in the directions that hardly count: xᵀPx and xᵀq are a million times their sum."""
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.normal(size=(40, 40)))[0] for _ in range(2))
    a, b = left @ np.diag(np.geomspace(1.0, condition**-0.5, 40)) @ right, rng.normal(size=40)
    x = cp.Variable(40, name="x")
    layer = oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(a @ x - b)), [cp.sum(x) == 0])).double()
    solution = layer.solve(tolerance=1e-12)
    kkt = np.block([[a.T @ a, np.ones((40, 1))], [np.ones((1, 40)), np.zeros((1, 1))]])
    want = np.linalg.solve(kkt, np.append(a.T @ b, 0.0))[:40]
    assert solution.status.all_converged
    assert np.linalg.norm(a @ (solution.values[0].detach().numpy() - want)) <= 1e-8
