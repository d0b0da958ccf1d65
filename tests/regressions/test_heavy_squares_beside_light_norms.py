"""A heavy square that is nearly 0 at the solution leaves a light norm its say: its gradient counts, not the gradient's
parts Px and q, which cancel."""

import cvxpy as cp
import numpy as np
import pytest

import opteq_cvx as oc

SPLITTINGS = {
    "Davis–Yin": oc.DavisYin(),
    "Douglas–Rachford": oc.DouglasRachford(),
    "Douglas–Rachford, Woodbury": oc.DouglasRachford(factor="woodbury"),
    "PDHG": oc.PDHG(),
}


@pytest.mark.parametrize("name", SPLITTINGS)
def test_a_heavy_square(name: str) -> None:
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(5, 5)))[0] for _ in range(2))
    heavy = left @ np.diag([4e3, 4e2, 10.0, 0.03, 0.01]) @ right
    x, c = cp.Variable(5, name="x"), np.array([-0.05, 0.9, 0.02, -0.45, 2.1])
    problem = cp.Problem(cp.Minimize(6e-4 * cp.norm_inf(x) + 0.1 * cp.sum_squares(heavy @ x - heavy @ c)))
    layer = oc.compile(problem, outputs=[x], splitting=SPLITTINGS[name]).double()
    assert repr(layer.plan).startswith(f"plan: {name}\n")
    solution = layer.solve(tolerance=1e-8)
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    best = float(problem.value)
    x.value = solution.values[0].numpy()
    assert solution.status.all_converged
    assert float(problem.objective.value) == pytest.approx(best, abs=1e-6, rel=0.0)
