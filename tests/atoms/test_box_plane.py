"""Whether a box cut by a plane or half-space is empty, against a linear program."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from opteq_cvx.atoms import atom

SHAPE = (2, 3)
SAMPLES = 40


@pytest.mark.parametrize("below", [False, True], ids=["plane", "half-space"])
def test_emptiness_is_that_of_a_linear_program(below: bool) -> None:
    rng = np.random.default_rng(int(below))
    lower, normal = rng.normal(size=(SAMPLES, *SHAPE)), rng.normal(size=(SAMPLES, *SHAPE))
    upper = lower + rng.uniform(0.1, 1.0, size=lower.shape)
    crossed = rng.random(SAMPLES) < 0.2
    upper[crossed, 1, 2] = lower[crossed, 1, 2] - 0.1
    normal[rng.random(normal.shape) < 0.2] = 0.0
    middle = (normal * (lower + upper)).sum((1, 2), keepdims=True) / 2
    total = middle + rng.normal(scale=1.5, size=middle.shape)
    infinite = rng.random(upper.shape) < 0.05
    upper[infinite & ~crossed[:, None, None]] = np.inf
    data = {"lower": lower, "upper": upper, "normal": normal, "total": total}
    f = atom("box_plane").from_static({"axes": (-2, -1), "below": below})
    found = f.empty({k: torch.tensor(v) for k, v in data.items()})
    assert found is not None
    assert found.shape == (SAMPLES, 1, 1)
    expected = [bool(crossed[i]) or _infeasible(lower[i], upper[i], normal[i], total[i], below) for i in range(SAMPLES)]
    assert 5 < sum(expected) < SAMPLES - 5
    assert found.flatten().tolist() == expected


def _infeasible(lower: np.ndarray, upper: np.ndarray, normal: np.ndarray, total: np.ndarray, below: bool) -> bool:
    row, end = normal.reshape(1, -1), total.reshape(1)
    cut = {"A_ub": row, "b_ub": end} if below else {"A_eq": row, "b_eq": end}
    bounds = list(zip(lower.flat, upper.flat, strict=True))
    return bool(linprog(np.zeros(lower.size), bounds=bounds, **cut).status == 2)
