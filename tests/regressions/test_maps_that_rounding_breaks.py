"""A rebalanced map whose factor is too ill-conditioned throws its iterates out of every bounded set."""

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.splitting.contract import Prepared, Theta
from opteq_cvx.splitting.douglas_rachford import DouglasRachford

N = 6
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(4, N))


@pytest.mark.parametrize("samples", [(0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("factor", [float("nan"), 1e30])
def test_samples_go_on_in_the_first_map(
    factor: float, samples: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, b, w = cp.Variable(N, name="x"), cp.Parameter(N, name="b"), cp.Parameter(nonneg=True, name="w")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b) + w * cp.norm1(ROWS @ x - 1)), [ROWS[:2] @ x <= 0.3])
    splitting = oc.DouglasRachford(newton=False)
    layer = oc.compile(problem, inputs=[b, w], outputs=[x], splitting=splitting, tolerance=1e-8, max_steps=20_000)
    own, broken = DouglasRachford.rebalance, list[int]()

    def breaking(self: DouglasRachford, z: torch.Tensor, theta: Theta, prepared: Prepared) -> Any:
        after = own(self, z, theta, prepared)
        moved, tensors = (z, prepared) if after is None else after
        broken.extend(samples)
        rows = torch.tensor([i in samples for i in range(len(z))])
        sigma, metric, *rest = tensors.tensors
        metric = torch.where(rows[:, None], factor * metric, metric.expand(len(z), -1))
        return moved, Prepared((sigma, metric, *rest), tensors.certificate)

    monkeypatch.setattr(DouglasRachford, "rebalance", breaking)
    data = torch.tensor(RNG.normal(size=(3, N))), torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    solution = layer.double().solve(*data)
    assert broken
    assert solution.status.all_converged
    for i in range(3):
        b.value, w.value = data[0][i].numpy(), float(data[1][i])
        problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
        assert solution.values[0][i].numpy() == pytest.approx(x.value, abs=1e-5)
