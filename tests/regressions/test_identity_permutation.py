"""CVXPY's default canonicalization backend misreads an identity permutation of a matrix; the checker must not."""

import cvxpy as cp
import numpy as np

from opteq_cvx.verify import solve_exact


def test_the_exact_solver_keeps_the_entries_of_a_permuted_matrix_in_place() -> None:
    target = np.arange(6.0).reshape(2, 3)
    x = cp.Variable((2, 3), name="x")
    same = cp.permute_dims(x, (0, 1))
    found = solve_exact(cp.Problem(cp.Minimize(cp.sum_squares(same - target))), [x])
    np.testing.assert_allclose(found.outputs[0], target, atol=1e-8)
