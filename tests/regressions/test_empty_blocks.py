"""A non-separable function of no entries (the jumps of a single row) is a constant, not a crash."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc


@pytest.mark.parametrize("shape", [(1, 4), (4, 1)])
@pytest.mark.parametrize("extra", [False, True], ids=["alone", "beside another term"])
def test_total_variation_of_one_row_or_column(shape: tuple[int, int], extra: bool) -> None:
    target = np.arange(4.0).reshape(shape) - 1.2
    p, u = oc.Input(shape, name="p"), cp.Variable(shape, name="u")
    more = cp.norm1(np.ones((2, shape[0])) @ u) if extra else 0.0
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u - p) + cp.tv(u) + more))
    layer = oc.compile(problem, tolerance=1e-9).double()
    values = torch.tensor(np.stack([target, -target])).requires_grad_()
    (found,) = layer(values)
    for sample, point in enumerate(found.detach().numpy()):
        p.value = values[sample].detach().numpy()
        problem.solve(solver="CLARABEL")
        np.testing.assert_allclose(point, u.value, atol=1e-6)
    found.sum().backward()
    assert bool(torch.isfinite(values.grad).all())
