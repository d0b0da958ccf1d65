"""Functions of pairs and triples whose scales differ from one to the next: each has a step of its own."""

import cvxpy as cp
import numpy as np
import pytest

import opteq_cvx as oc
from opteq_cvx.splitting.asked import SplittingChoice

N = 6
SCALES = np.geomspace(1e-3, 1e3, N)


def problem(name: str) -> cp.Problem:
    rng = np.random.default_rng(2)
    x, y = cp.Variable(4, name="x"), cp.Variable(4, name="y")
    a, b = (SCALES[:, None] * rng.normal(size=(N, 4)) for _ in range(2))
    near = cp.sum_squares(x - rng.normal(size=4)) + cp.sum_squares(y - rng.normal(size=4))
    over, under = a @ x + 5 * SCALES, b @ y + 5 * SCALES
    objective, constraints = {
        "kl_div": (cp.sum(cp.kl_div(over, under)), []),
        "rel_entr": (cp.sum(cp.rel_entr(over, under)), []),
        "exp_cone": (cp.Constant(0.0), [cp.ExpCone(over - 4 * SCALES, under, over + under)]),
        "rows": (cp.sum(cp.norm(cp.vstack([a @ x + SCALES, b @ y]), 2, axis=0)), []),
        "soc": (cp.Constant(0.0), [cp.SOC(SCALES, cp.vstack([a @ x, b @ y]), axis=0)]),
        "quad_over_lin": (sum(cp.quad_over_lin(over[i : i + 1], under[i]) for i in range(N)), []),
    }[name]
    return cp.Problem(cp.Minimize(objective + near), constraints)


@pytest.mark.parametrize("splitting", [oc.DouglasRachford(), oc.PDHG()], ids=["DR", "PDHG"])
@pytest.mark.parametrize("name", ["kl_div", "rel_entr", "exp_cone", "rows", "soc", "quad_over_lin"])
def test_each_is_as_accurate_as_all(name: str, splitting: SplittingChoice) -> None:
    program = problem(name)
    solution = oc.compile(program, splitting=splitting, tolerance=1e-9, max_steps=2000).double().solve()
    best = program.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    assert solution.status.all_converged
    assert float(solution.objective) == pytest.approx(best, rel=1e-6)
    for variable in program.variables():
        ours = solution.variables[variable.name()].detach().numpy()
        assert ours == pytest.approx(variable.value, rel=1e-4, abs=1e-4)
