"""A function of an expression that its variables cancel out of is a constant: it keeps no ray from being followed."""

import cvxpy as cp
import numpy as np
import pytest

import opteq_cvx as oc
from opteq_cvx.status import Status


def test_a_term_without_variables_left_hides_no_unboundedness() -> None:
    x, y = cp.Variable(4, name="x"), cp.Variable(3, name="y")
    flat = cp.sum(cp.inv_pos(x[1:] - x[1:] + 1.4))
    bounded = [cp.norm1(cp.diff(x)) <= 1, x >= -1, x <= 2, y >= 0]
    problem = cp.Problem(cp.Minimize(flat - np.array([0.5, 0.4, 0.7]) @ y), bounded)
    with pytest.warns(oc.SolveWarning, match="unbounded"):
        solution = oc.compile(problem, max_steps=500).double().solve()
    assert solution.status[()] is Status.DUAL_INFEASIBLE
