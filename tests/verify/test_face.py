"""The nearest point of a solution set, where the set is known."""

import cvxpy as cp
import numpy as np
import pytest

from opteq_cvx.verify.exact import solve_exact
from opteq_cvx.verify.face import nearest


def _nearest(problem: cp.Problem, x: cp.Variable, target: np.ndarray) -> np.ndarray:
    found = solve_exact(problem, [x])
    assert found.conic is not None
    closest = nearest(found.conic, [target])
    assert closest is not None
    return closest[0]


def test_a_unique_solution_is_its_own_nearest_point() -> None:
    x = cp.Variable(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - np.array([1.0, 2.0, 3.0]))))
    np.testing.assert_allclose(_nearest(problem, x, np.zeros(3)), [1.0, 2.0, 3.0], atol=1e-11)


def test_an_edge_of_a_linear_program() -> None:
    """min x₀ over the unit box: the solutions are {0} × [0, 1]²."""
    x = cp.Variable(3)
    problem = cp.Problem(cp.Minimize(x[0]), [x >= 0, x <= 1])
    found = _nearest(problem, x, np.array([0.7, 0.25, 2.0]))
    np.testing.assert_allclose(found, [0.0, 0.25, 1.0], atol=1e-10)


def test_underdetermined_least_squares() -> None:
    """The solutions of Ax = b: the nearest is a projection."""
    rng = np.random.default_rng(0)
    A, b, y = rng.normal(size=(2, 5)), rng.normal(size=2), rng.normal(size=5)
    x = cp.Variable(5)
    found = _nearest(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b))), x, y)
    np.testing.assert_allclose(found, y - np.linalg.pinv(A) @ (A @ y - b), atol=1e-9)


def test_duplicated_lasso_columns_share_any_way() -> None:
    """Two equal columns: any split with the same sum and one sign is a solution."""
    a = np.random.default_rng(0).normal(size=4)
    x = cp.Variable(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(np.stack([a, a], axis=1) @ x - a) + 0.1 * cp.norm1(x)))
    total = 1.0 - 0.05 / (a @ a)
    np.testing.assert_allclose(_nearest(problem, x, np.array([0.6, total - 0.6])), [0.6, total - 0.6], atol=1e-9)
    np.testing.assert_allclose(_nearest(problem, x, np.array([total + 5.0, -5.0])), [total, 0.0], atol=1e-9)


def test_a_matrix_shape_and_a_semidefinite_face() -> None:
    """min X₀₀ over correlation-like matrices: row and column 0 vanish, the rest is free."""
    X = cp.Variable((3, 3), PSD=True)
    problem = cp.Problem(cp.Minimize(X[0, 0]), [cp.trace(X) == 1])
    target = np.array([[0.3, 0.1, 0.0], [0.1, 0.6, 0.2], [0.0, 0.2, 0.4]])
    truth = target.copy()
    truth[0] = truth[:, 0] = 0.0
    np.testing.assert_allclose(_nearest(problem, X, target), truth, atol=1e-7)


@pytest.mark.parametrize("target", [np.array([2.0, 0.5, 0.5]), np.array([0.5, 3.0, 0.0])])
def test_a_ray_of_a_second_order_cone(target: np.ndarray) -> None:
    """min ‖y‖ − y₀: the solutions are the ray y = (t, 0), t ≥ 0."""
    y = cp.Variable(3)
    problem = cp.Problem(cp.Minimize(cp.norm2(y) - y[0]), [y[0] <= 10])
    np.testing.assert_allclose(_nearest(problem, y, target), [target[0], 0.0, 0.0], atol=1e-6)
