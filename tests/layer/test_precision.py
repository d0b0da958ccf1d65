"""What each dtype is promised: its tolerance, against Clarabel at the same (rounded) data."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc

PROMISED = {torch.float64: 1e-5, torch.float32: 1e-3, torch.bfloat16: 1e-1}
"""Largest error of the solution relative to its size, at the default tolerances, on well conditioned programs."""


@pytest.mark.parametrize("kind", ["lasso", "box", "simplex"])
@pytest.mark.parametrize("dtype", PROMISED, ids=str)
def test_the_error_is_within_what_the_dtype_promises(dtype: torch.dtype, kind: str) -> None:
    rng = np.random.default_rng(0)
    x, u = oc.Input(4, name="x"), cp.Variable(5, name="u")
    A = torch.tensor(rng.normal(size=(5, 4)) / 2).to(dtype).double().numpy()
    smooth = cp.sum_squares(u - A @ x)
    problem = {
        "lasso": cp.Problem(cp.Minimize(smooth + 0.25 * cp.norm1(u))),
        "box": cp.Problem(cp.Minimize(smooth), [u >= -0.5, u <= 0.25]),
        "simplex": cp.Problem(cp.Minimize(smooth), [u >= 0, cp.sum(u) == 1]),
    }[kind]
    layer = oc.compile(problem, [x], [u]).to(dtype)
    values = torch.tensor(rng.normal(size=(8, 4))).to(dtype)
    solution = layer.solve(values)
    assert solution.status.all_converged
    assert solution.values[0].dtype == dtype
    for i in range(8):
        x.value = values[i].double().numpy()
        problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
        error = np.abs(solution.values[0][i].double().numpy() - u.value).max() / max(1.0, np.abs(u.value).max())
        assert error <= PROMISED[dtype]
