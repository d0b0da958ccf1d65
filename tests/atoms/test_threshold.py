"""Water levels against bisection, and the prox of sum_largest against CVXPY on awkward points."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from opteq_cvx.atoms import atom
from opteq_cvx.atoms.threshold import capped_level, level, plane_level


def bisect(v: Tensor, cap: Tensor, total: Tensor) -> Tensor:
    low, high = v.amin(-1, keepdim=True) - cap - total - 1, v.amax(-1, keepdim=True) + 1
    for _ in range(200):
        middle = (low + high) / 2
        more = (v - middle).clamp(min=0).minimum(cap).sum(-1, keepdim=True) > total
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return (low + high) / 2


def poured(v: Tensor, tau: Tensor, cap: Tensor) -> Tensor:
    return (v - tau).clamp(min=0).minimum(cap).sum(-1, keepdim=True)


def test_level_is_the_root(generator: torch.Generator) -> None:
    v = torch.randn((40, 9), dtype=torch.float64, generator=generator)
    total = 5 * torch.rand((40, 1), dtype=torch.float64, generator=generator)
    for ties in (True, False):
        torch.testing.assert_close(level(v, total, ties=ties), bisect(v, total + 100, total))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shape", [(1000, 9), (40, 300), (4096, 1), (1, 5000)])
def test_level_by_passes_is_the_root(shape: tuple[int, int], scale: float, generator: torch.Generator) -> None:
    """Large inputs, whose active set is shrunk: with ties, with a total of 0, and with an entry of −inf."""
    v = scale * torch.randn(shape, dtype=torch.float64, generator=generator)
    v[::3] = v[::3].round()
    total = 5 * torch.rand((shape[0], 1), dtype=torch.float64, generator=generator)
    total[::7] = 0.0
    want = bisect(v, total + 100 * scale * 100, total)
    for ties in (True, False):
        found = level(v, total, ties=ties)
        torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12 * max(1.0, scale))
        assert v.shape[-1] == 1 or torch.equal(level(torch.cat([v, v - torch.inf], -1), total, ties=ties), found)


@pytest.mark.parametrize("n", [1, 2, 9, 50])
def test_capped_level_pours_the_total(n: int, generator: torch.Generator) -> None:
    v = torch.randn((60, n), dtype=torch.float64, generator=generator)
    v[::3] = v[::3].round()  # with ties
    cap = 2 * torch.rand((60, 1), dtype=torch.float64, generator=generator) + 1e-3
    share = torch.rand((60, 1), dtype=torch.float64, generator=generator)
    share[:4] = torch.tensor([[0.0], [1.0], [1 / n], [0.5]], dtype=torch.float64)
    total = share * n * cap
    tau = capped_level(v, cap, total)
    torch.testing.assert_close(poured(v, tau, cap), total, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [1.0, 2.0, 3.0, 2.5, 6.0, 8.0])
@pytest.mark.parametrize("v", [[1, 1, 1, 1, 1, 1], [3, 3, 1, 1, 0, 0], [9, 6, 3, 0, -3, -6], [0, 0, 0, 0, 0, 0]])
def test_prox_of_sum_largest_at_ties(k: float, v: list[int]) -> None:
    point = torch.tensor(v, dtype=torch.float64)
    f = atom("sum_largest").from_static({"k": k})
    x = cp.Variable(6)
    q = cp.Variable()
    largest = k * q + cp.sum(cp.pos(x - q)) if k < 6 else cp.sum(x)  # Rockafellar, Uryasev
    for step in (0.0, 0.1, 1.0, 10.0):
        ours = f.prox(point, torch.tensor([step], dtype=torch.float64), {})
        objective = step * largest + 0.5 * cp.sum_squares(x - np.array(v))
        cp.Problem(cp.Minimize(objective)).solve(solver=cp.CLARABEL)
        torch.testing.assert_close(ours, torch.as_tensor(x.value), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [5.0, 7.5])
@pytest.mark.parametrize("kind", ["normal", "tied", "scaled"])
def test_sum_largest_of_a_large_batch_is_that_of_its_rows(kind: str, k: float, generator: torch.Generator) -> None:
    """Large batches go by passes, single rows by a sort."""
    v = 2 * torch.randn((200, 50), dtype=torch.float64, generator=generator)
    sizes = torch.logspace(-12, 8, 200, dtype=torch.float64).unsqueeze(-1)
    v = {"normal": v, "tied": v.round(), "scaled": v * sizes}[kind]
    v[3, 4] = torch.nan
    t = torch.rand((200, 1), dtype=torch.float64, generator=generator)
    f = atom("sum_largest").from_static({"k": k})
    whole = f.prox(v, t, {})
    rows = torch.cat([f.prox(v[i : i + 1], t[i : i + 1], {}) for i in range(200)])
    keep = torch.arange(200) != 3
    scale = v.abs().amax(-1, keepdim=True) + t
    assert float(((whole - rows).abs() / scale)[keep].max()) <= 4e-16


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_plane_level_is_the_root_of_every_row(batch: tuple[int, ...], generator: torch.Generator) -> None:
    v, low, width, a, mu = (torch.randn(*batch, 6, dtype=torch.float64, generator=generator) for _ in range(5))
    a[..., 2] = 0.0
    upper = low + width.abs()
    inside = torch.clamp(v - mu[..., :1] * a, low, upper)
    total = (a * inside).sum(-1, keepdim=True)
    found = plane_level(v, low, upper, a, total)
    assert found.shape == (*batch, 1)
    torch.testing.assert_close((a * torch.clamp(v - found * a, low, upper)).sum(-1, keepdim=True), total)
