"""The dead zone where there is none: `pos(abs(x) + 1)` has m = −1, and its prox is that of |x|."""

import cvxpy as cp
import numpy as np
import torch

import opteq_cvx as oc
from opteq_cvx.atoms.deadzone import Deadzone

POINTS = (0.1, -0.5, 3.0, -4.0)


def test_a_negative_dead_zone_gives_cvxpys_argmin() -> None:
    b, x = oc.Input(4, name="b"), cp.Variable(4, name="x")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - b) + cp.sum(cp.pos(cp.abs(x) + 1.0))))
    layer = oc.compile(problem, outputs=[x])
    assert "deadzone" in str(layer.plan)
    found = layer.solve(torch.tensor(POINTS, dtype=torch.float64)).values[0]
    b.value = np.array(POINTS)
    problem.solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(found.numpy(), x.value, atol=1e-7)


def test_fenchels_equality_holds_for_a_negative_dead_zone() -> None:
    atom, v = Deadzone(), torch.tensor(POINTS, dtype=torch.float64)
    step, data = torch.full_like(v, 0.7), {"m": torch.full_like(v, -1.0)}
    x = atom.prox(v, step, data)
    y = (v - x) / step
    torch.testing.assert_close(atom.value(x, data) + atom.conjugate(y, data), x * y)
