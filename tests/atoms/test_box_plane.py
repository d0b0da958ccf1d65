"""A box cut by a plane or half-space: whether it is empty, against a linear program; large batches."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from opteq_cvx.atoms import atom
from opteq_cvx.atoms.box_plane import BoxPlane

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


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("kind", ["box", "half-line", "line", "zeros in the normal"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_passes_over_a_large_batch_are_the_search_in_each_row(kind: str, scale: float, *, below: bool) -> None:
    """Large batches on the CPU take Newton steps, small ones a sort: the same points, also with infinite bounds."""
    g = torch.Generator().manual_seed(3)
    v, a, inside = (torch.randn((300, 20), generator=g, dtype=torch.float64) for _ in range(3))
    low, high = (torch.rand((300, 20), generator=g, dtype=torch.float64) for _ in range(2))
    low, high = -low, high
    if kind == "half-line":
        high = torch.full_like(high, torch.inf)
    if kind == "line":
        low, high = torch.full_like(low, -torch.inf), torch.where(torch.arange(20) < 5, high, torch.inf)
    if kind == "zeros in the normal":
        a = torch.where(torch.arange(20) % 3 == 0, 0.0, a)
    total = (a * torch.minimum(torch.maximum(inside, low), high)).sum(-1, keepdim=True)
    f, step = BoxPlane(below=below), torch.ones(1, 1, dtype=torch.float64)
    data = {"lower": low, "upper": high, "normal": a, "total": total}
    x = f.prox(scale * v, step, data)
    for i in range(0, 300, 10):
        row = f.prox(scale * v[i], step[0], {k: t[i] for k, t in data.items()})
        torch.testing.assert_close(x[i], row, rtol=0, atol=1e-13 * (1 + 10 * scale))
    over = (a * x).sum(-1, keepdim=True) - total
    assert float((torch.relu(over) if below else over.abs()).max()) <= 1e-13 * (1 + 10 * scale)
