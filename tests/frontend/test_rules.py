"""Programs whose value hangs on one rule of the reader, against Clarabel."""

import cvxpy as cp
import numpy as np
import pytest

import opteq_cvx as oc
from opteq_cvx.errors import CompileError

EXACT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
RNG = np.random.default_rng(3)
ROOT = RNG.normal(size=(3, 3))
P, C = ROOT @ ROOT.T + np.eye(3), RNG.uniform(0.5, 1.5, size=3)
pytestmark = pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
NAMES = vars(cp) | {"np": np, "P": P, "C": cp.Constant(C), "two": cp.Constant(2.0)}

COSTS = (
    "sum(inv_pos(sqrt(x))) + sum(x)",  # a power of a concave function that is no geometric mean
    "sum(power(log(x + 2), -1)) + sum_squares(x)",
    "quad_form(reshape(x, (3, 1), order='F') - 1, P)",  # a column
    "sum_squares(x - 1) + (exp(C) + two) @ x",  # constants are read by their values, not their first argument's
    "sum_squares(x - two * C) + (square(C) - C) @ x",
    "sum_squares(multiply(np.full(3, 2.0), x) - C)",
    "norm(x - 1) + norm1(2 * x - C) + 0.1 * sum_squares(x)",
)


@pytest.mark.parametrize("cost", COSTS)
def test_the_solution_is_clarabels(cost: str) -> None:
    x = cp.Variable(3, name="x")
    problem = cp.Problem(cp.Minimize(eval(cost, NAMES | {"x": x})), [x >= 0.1, x <= 5])
    solution = oc.compile(problem, outputs=[x], tolerance=1e-10).double().solve()
    assert solution.status.all_converged
    problem.solve(solver=cp.CLARABEL, **EXACT)
    np.testing.assert_allclose(solution.values[0].detach().numpy(), x.value, atol=3e-6)


def test_a_tie_to_complex_numbers_is_refused() -> None:
    u, z = cp.Variable(2, name="u"), cp.Parameter(2, name="z")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u) - z @ u))
    with pytest.raises(CompileError, match="complex"):
        oc.compile(problem, ties={z: 1j * u})
