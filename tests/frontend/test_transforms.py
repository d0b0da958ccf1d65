"""CVXPY's transforms that hold constraints, against its own solve."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from cvxpy.transforms.indicator import indicator
from cvxpy.transforms.partial_optimize import partial_optimize

import opteq_cvx as oc

TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)


def indicated(x: cp.Variable, b: cp.Parameter) -> cp.Problem:
    return cp.Problem(cp.Minimize(cp.sum_squares(x - b) + indicator([x <= 1, cp.sum(x) == 1])), [x >= 0.2])


def partial(x: cp.Variable, b: cp.Parameter) -> cp.Problem:
    y = cp.Variable(2)
    f = partial_optimize(cp.Problem(cp.Minimize(cp.sum_squares(x - y) + cp.norm1(y - b)), [y >= 0.5]), [y], [x])
    return cp.Problem(cp.Minimize(2 * f + cp.sum(x)), [cp.exp(f) <= 20, x >= -4])


@pytest.mark.parametrize("build", [indicated, partial])
def test_transforms_are_their_constraints(build: object) -> None:
    x, b = cp.Variable(2, name="x"), cp.Parameter(2, name="b", value=np.array([0.7, -0.4]))
    problem = build(x, b)
    layer = oc.compile(problem, inputs=[b], outputs=[x], tolerance=1e-10)
    solution = layer.solve(torch.tensor(b.value))
    assert len(solution.duals) == len(problem.constraints)
    assert float(solution.objective) == pytest.approx(problem.solve(solver=cp.CLARABEL, **TIGHT), abs=1e-6)
    np.testing.assert_allclose(solution.values[0].numpy(), x.value, atol=1e-5)
