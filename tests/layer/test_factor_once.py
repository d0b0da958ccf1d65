"""A matrix shared by all calls is factored once: what is learned or given later only enters vectors."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.ir.param import Apply, Stage
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting import douglas_rachford
from opteq_cvx.splitting.system import System, factorize


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def counted(a: torch.Tensor, b: torch.Tensor) -> System:
        calls.append(a.shape[0])
        return factorize(a, b)

    monkeypatch.setattr(douglas_rachford, "factorize", counted)
    return calls


def declared() -> oc.EquilibriumLayer:
    rng = np.random.default_rng(0)
    y, lam = oc.Input(8, name="y"), oc.Weight(name="lam", nonneg=True, init=0.3)
    x, a = cp.Variable(12, name="x"), rng.normal(size=(8, 12))
    cost = 0.5 * cp.sum_squares(a @ x - y) + lam * cp.norm1(x)
    layer = oc.compile(cp.Problem(cp.Minimize(cost)), splitting="douglas-rachford", tolerance=1e-9)
    return layer.double()


def test_a_dictionary_shared_by_all_samples_is_factored_once_for_all_calls(count: list[int]) -> None:
    layer = declared()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    for seed in range(3):
        y = torch.randn(4, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        (x,) = layer(y)
        x.square().sum().backward()
        optimizer.step()
    assert count == [1]


def test_a_sample_far_from_its_neighbors_in_size_does_not_disturb_them() -> None:
    layer = declared()
    y = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y[1] *= 1e5
    together = layer(y)[0]
    for i in range(3):
        torch.testing.assert_close(together[i], layer(y[i])[0], rtol=0, atol=1e-7 * float(y[i].abs().max()))


def test_prepared_calls_do_not_compute_expressions_of_weights_again(monkeypatch: pytest.MonkeyPatch) -> None:
    x, u = oc.Input(5, name="x"), cp.Variable(4, name="u", nonneg=True)
    w, v = oc.Weight((4, 4), name="W", norm=0.9), oc.Weight((4, 5), name="V")
    curved = cp.quad_form(u, cp.psd_wrap(np.eye(4) - w @ w.T))
    layer = oc.compile(cp.Problem(cp.Minimize(0.5 * curved - (v @ x) @ u)), tolerance=1e-9).double()
    data, prepared = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64), layer.prepare()
    seen: list[Stage] = []
    apply = Environment._apply

    def counted(self: Environment, node: Apply) -> torch.Tensor:
        seen.append(node.stage)
        return apply(self, node)

    monkeypatch.setattr(Environment, "_apply", counted)
    fresh = layer(data)[0]
    assert Stage.WEIGHT in seen
    seen.clear()
    torch.testing.assert_close(layer(data, prepared=prepared)[0], fresh, rtol=0, atol=0)
    assert seen
    assert Stage.WEIGHT not in seen
