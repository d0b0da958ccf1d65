"""Geometric means along an axis: the program of each column on its own is the oracle.

CVXPY 1.9.3's default backend transposes the entries of an identity `moveaxis` of a matrix, which
`geo_mean(X, axis=0)` makes: its argmin does not minimize its own objective, and is no oracle here.
"""

import cvxpy as cp
import numpy as np
import pytest
import torch

from opteq_cvx.atoms import atom
from opteq_cvx.verify.exact import solve_exact


@pytest.mark.parametrize("step", [0.1, 1.0, 10.0])
def test_columns(step: float) -> None:
    v = 2.0 * np.random.default_rng(0).normal(size=(2, 3))
    x = cp.Variable((2, 3))
    means = sum(cp.geo_mean(x[:, i]) for i in range(3))
    exact = solve_exact(cp.Problem(cp.Minimize(-step * means + 0.5 * cp.sum_squares(x - v))), [x])
    f = atom("neg_geo_mean").from_static({"axes": (-2,), "w": (0.5, 0.5)})
    ours = f.prox(torch.from_numpy(v), torch.full((1, 3), step, dtype=torch.float64), {})
    assert float(np.abs(ours.numpy() - exact.outputs[0]).max()) <= 1e-7


def test_entries_of_weight_zero_are_left_alone() -> None:
    f = atom("neg_geo_mean").from_static({"w": (0.5, 0.0, 0.5)})
    v = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    x = f.prox(v, torch.ones(1, dtype=torch.float64), {})
    assert x[1] == -2.0
    alone = atom("neg_geo_mean").from_static({"w": (0.5, 0.5)})
    assert torch.allclose(x[[0, 2]], alone.prox(v[[0, 2]], torch.ones(1, dtype=torch.float64), {}), rtol=1e-14, atol=0)


def test_far_below_zero_the_prox_is_zero() -> None:
    f = atom("neg_geo_mean").from_static({"w": (0.5, 0.5)})
    v = torch.tensor([-1.0, -1.0], dtype=torch.float64)
    assert torch.equal(f.prox(v, torch.full((1,), 1.9, dtype=torch.float64), {}), torch.zeros(2, dtype=torch.float64))
    assert (f.prox(v, torch.full((1,), 2.1, dtype=torch.float64), {}) > 0).all()
