"""CVXPY 1.9 fails to canonicalize `sum_largest` of a matrix whose variable has a value; the checker must not."""

import cvxpy as cp
import numpy as np

from opteq_cvx.verify import solve_exact


def test_the_exact_solver_takes_no_notice_of_values_and_gives_them_back() -> None:
    x, start = cp.Variable((2, 3), name="x"), np.arange(6.0).reshape(2, 3)
    x.value = start
    found = solve_exact(cp.Problem(cp.Minimize(cp.sum_largest(x, 6) + 0.5 * cp.sum_squares(x - 2.0))), [x])
    np.testing.assert_allclose(found.outputs[0], np.ones((2, 3)), atol=1e-8)
    np.testing.assert_array_equal(x.value, start)
    x.value = start
    found = solve_exact(cp.Problem(cp.Minimize(cp.sum_largest(x, 3)), [x >= 1.0, cp.sum(x) == 9.0]), [x])
    np.testing.assert_allclose(found.objective, 4.5, atol=1e-7)
