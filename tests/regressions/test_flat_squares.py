"""A least squares fit along directions that hardly count is far away, but not unbounded."""

import cvxpy as cp
import numpy as np
import pytest

import opteq_cvx as oc


@pytest.mark.parametrize("splitting", [oc.DouglasRachford(), oc.ForwardBackward(), None], ids=["DR", "FB", "default"])
@pytest.mark.parametrize("condition", [1e6, 1e8, 1e10])
def test_a_minimum_far_away(condition: float, splitting: oc.DouglasRachford | oc.ForwardBackward | None) -> None:
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.normal(size=(20, 20)))[0] for _ in range(2))
    a, b = left @ np.diag(np.geomspace(1.0, condition**-0.5, 20)) @ right, rng.normal(size=20)
    x = cp.Variable(20, name="x")
    layer = oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(a @ x - b))), outputs=[x], splitting=splitting).double()
    solution = layer.solve()
    assert solution.status[()] is not oc.Status.DUAL_INFEASIBLE
    if condition <= 1e8:
        assert solution.status.all_converged
        assert float(solution.objective) <= 1e-3


def test_a_square_that_leaves_a_direction_free_is_unbounded() -> None:
    rng = np.random.default_rng(1)
    a, q = rng.normal(size=(3, 5)), rng.normal(size=5)
    x = cp.Variable(5, name="x")
    layer = oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(a @ x) + q @ x)), outputs=[x]).double()
    with pytest.warns(oc.SolveWarning):
        assert layer.solve().status[()] is oc.Status.DUAL_INFEASIBLE
