"""Chains against SciPy's isotonic regression and the optimality conditions of total variation, to rounding."""

import numpy as np
import pytest
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from opteq_cvx.atoms import atom
from opteq_cvx.atoms.chain import chain

EXACT = 1e-12  # relative; the conditions determine the solution

sizes = pytest.mark.parametrize("n", [1, 2, 3, 10, 101, 600])


def walk(n: int, rows: int, generator: torch.Generator) -> Tensor:
    return torch.randn((rows, n), dtype=torch.float64, generator=generator).cumsum(-1) / 3


def off(v: Tensor, x: Tensor, down: Tensor, up: Tensor) -> float:
    """How far x is from optimal: flow = Σ (v − x) must lie in [−up, down], at an end where x jumps, and end at 0."""
    flow, jump = (v - x).cumsum(-1), x.diff(dim=-1)
    inner = flow[..., :-1]
    # a jump up costs `up` and pulls xᵢ up: v − x = −up there; a jump down the opposite
    outside = torch.relu(inner - down) + torch.relu(-up - inner)
    falls, rises = jump < -1e-11, jump > 1e-11
    tight = torch.where(falls, (inner - down).abs(), torch.where(rises, (inner + up).abs(), 0.0))
    return float(torch.cat([outside, tight, flow[..., -1:].abs()], -1).max())


@sizes
@pytest.mark.parametrize("lam", [0.0, 1e-3, 0.3, 3.0, 1e3])
@pytest.mark.parametrize("rows", [3, 70])
def test_total_variation_is_optimal(n: int, lam: float, rows: int, generator: torch.Generator) -> None:
    v = walk(n, rows, generator)
    weight = lam * torch.rand((1, n - 1), dtype=torch.float64, generator=generator)
    x = chain(v, weight, weight)
    assert off(v, x, weight, weight) <= EXACT * n * (1 + float(v.abs().max()))


@sizes
def test_different_costs_up_and_down_are_optimal(n: int, generator: torch.Generator) -> None:
    v = walk(n, 20, generator)
    down, up = torch.rand((2, 20, n - 1), dtype=torch.float64, generator=generator)
    assert off(v, chain(v, down, up), down, up) <= EXACT * n * (1 + float(v.abs().max()))


@sizes
@pytest.mark.parametrize("rounded", [False, True], ids=["plain", "ties"])
@pytest.mark.parametrize("rows", [3, 70])
def test_isotonic_regression_is_scipys(n: int, rounded: bool, rows: int, generator: torch.Generator) -> None:
    v = walk(n, rows, generator)
    v = v.round() if rounded else v
    x = atom("monotone").from_static({}).prox(v, torch.ones(rows, 1, dtype=torch.float64), {})
    theirs = np.stack([isotonic_regression(row).x for row in v.numpy()])
    np.testing.assert_allclose(x.numpy(), theirs, rtol=0, atol=1e-12)


def test_growing_data_take_many_rounds_and_end_right() -> None:
    v = 1.5 ** torch.arange(60, dtype=torch.float64).unsqueeze(0)
    weight = torch.full((1, 59), 0.5, dtype=torch.float64)
    assert off(v, chain(v, weight, weight), weight, weight) <= 1e-13 * float(v.max())


def test_the_doubling_and_the_loop_agree(generator: torch.Generator) -> None:
    v = walk(40, 64, generator)
    weight = torch.full((1, 39), 0.4, dtype=torch.float64)
    together = chain(v, weight, weight)
    alone = torch.cat([chain(row, weight, weight) for row in v.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-13)


def test_it_runs_under_vmap_and_on_a_device_without_values(generator: torch.Generator) -> None:
    v = walk(12, 6, generator)
    weight = torch.full((11,), 0.4, dtype=torch.float64)
    mapped = torch.vmap(lambda row: chain(row.unsqueeze(0), weight, weight)[0])(v)
    torch.testing.assert_close(mapped, chain(v, weight, weight), rtol=0, atol=1e-14)
    away = chain(v.to("meta"), weight.to("meta"), weight.to("meta"))
    assert away.shape == v.shape


def test_nan_stays_in_its_sample(generator: torch.Generator) -> None:
    v = walk(12, 2, generator)
    v[0, 3] = torch.nan
    weight = torch.full((11,), 0.4, dtype=torch.float64)
    x = chain(v, weight, weight)
    assert x[0].isnan().any()
    torch.testing.assert_close(x[1], chain(v[1], weight, weight))
