"""HSIC over the batch: values against traces, the equilibrium against stationarity, gradients by differences."""

import warnings
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.errors import CompileError, CouplingWarning, InputError

ROWS, UNITS = 6, 4


def layer(prior: oc.HSIC | None, **options: object) -> oc.EquilibriumLayer:
    x, c = oc.Input(3, name="x"), np.random.default_rng(0).normal(size=(UNITS, 3))
    w = oc.Weight((UNITS, UNITS), name="W", norm=0.9, seed=0)
    u = cp.Variable(UNITS, nonneg=True, name="u")
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(UNITS) - w @ w.T)) - (c @ x + 1.0) @ u
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CouplingWarning)
        return oc.compile(cp.Problem(cp.Minimize(energy)), decorrelate=prior, **options).double()


def batch() -> torch.Tensor:
    return torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def trace_formula(k: np.ndarray, l: np.ndarray) -> float:
    n = len(k)
    h = np.eye(n) - np.ones((n, n)) / n
    return float(np.trace(k @ h @ l @ h)) / (n - 1) ** 2


def gaussian(z: np.ndarray, s: float) -> np.ndarray:
    return np.exp(-np.sum((z[:, None] - z[None]) ** 2, axis=2) / (2 * s**2))


ONES = torch.ones(ROWS, dtype=torch.float64)


def test_values_are_those_of_the_trace_formula() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(ROWS, 3)), rng.normal(size=(ROWS, 2))
    parts = {"a": torch.from_numpy(a), "b": torch.from_numpy(b)}
    linear = oc.HSIC(strength=1.0, between=("a", "b")).value(parts, ONES)
    assert float(linear) == pytest.approx(trace_formula(a @ a.T, b @ b.T), rel=1e-12)
    curved = oc.HSIC(strength=1.0, between=("a", "b"), kernel="gaussian", bandwidth=0.7).value(parts, ONES)
    assert float(curved) == pytest.approx(trace_formula(gaussian(a, 0.7), gaussian(b, 0.7)), rel=1e-12)
    within = oc.HSIC(strength=1.0).value({"a": torch.from_numpy(a)}, ONES)
    columns = [(i, j) for i in range(3) for j in range(3) if i != j]
    pairs = sum(trace_formula(np.outer(a[:, i], a[:, i]), np.outer(a[:, j], a[:, j])) for i, j in columns)
    assert float(within) == pytest.approx(pairs, rel=1e-12)


def test_masked_samples_take_no_part() -> None:
    a = torch.randn(ROWS, 3, dtype=torch.float64)
    mask = torch.tensor([1.0, 1, 0, 1, 0, 1], dtype=torch.float64)
    for prior in (oc.HSIC(strength=1.0), oc.HSIC(strength=1.0, between=("a", "b"), kernel="gaussian")):
        whole = prior.value({"a": a, "b": a**2}, mask)
        part = prior.value({"a": a[mask > 0], "b": a[mask > 0] ** 2}, ONES[:4])
        torch.testing.assert_close(whole, part)


def covariances(u: torch.Tensor) -> torch.Tensor:
    return torch.cov(u.T) - torch.diag(torch.cov(u.T).diagonal())


def test_it_is_stationary_and_lowers_the_covariances() -> None:
    """Where u > 0: (I − WWᵀ)u − c + B∇R = 0, the closed formula of ∇R; where u = 0 the sum is nonnegative."""
    strength, x = 0.3, batch()
    net = layer(oc.HSIC(strength=strength), tolerance=1e-9)
    solution = net.solve(x)
    assert solution.status.all_converged
    assert solution.stats.coupled
    u, w = solution.values[0].detach().numpy(), net.weights.numpy("W")
    c = x.numpy() @ np.random.default_rng(0).normal(size=(UNITS, 3)).T + 1.0
    h = np.eye(ROWS) - np.ones((ROWS, ROWS)) / ROWS
    gram = u.T @ h @ u
    slope = 4.0 * h @ u @ (gram - np.diag(np.diag(gram))) / (ROWS - 1) ** 2
    total = u @ (np.eye(UNITS) - w @ w.T) - c + strength * ROWS * slope
    assert np.abs(total[u > 1e-9]).max() < 1e-6
    assert total[u <= 1e-9].min(initial=0.0) > -1e-6
    alone = net.eval()(x)[0].detach()
    assert covariances(solution.values[0].detach()).norm() < 0.8 * covariances(alone).norm()


def test_the_gradient_is_that_of_finite_differences() -> None:
    net = layer(oc.HSIC(strength=0.3), tolerance=1e-11)
    x = batch().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: net(t)[0], x, eps=1e-5, atol=1e-5, rtol=1e-4)
    net(x)[0].square().sum().backward()
    raw = net.weights.raw("W")
    direction = torch.randn(raw.shape, dtype=raw.dtype, generator=torch.Generator().manual_seed(2))
    ends, step = [], 1e-5
    for sign in (1.0, -1.0):
        with torch.no_grad():
            raw.add_(direction, alpha=sign * step)
            ends.append(float(net(x)[0].square().sum()))
            raw.add_(direction, alpha=-sign * step)
    assert float((raw.grad * direction).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_evaluation_is_per_sample_and_verified() -> None:
    net, plain = layer(oc.HSIC(strength=1.0)), layer(None)
    net.load_state_dict(plain.state_dict())
    x = batch()
    torch.testing.assert_close(net.eval()(x)[0], plain(x)[0], atol=1e-6, rtol=0.0)
    assert not net.eval().solve(x).stats.coupled
    assert oc.verify(net.train(), x[:2], gradients=False).ok


def test_a_bad_sample_takes_no_part_and_spoils_nothing() -> None:
    net, x = layer(oc.HSIC(strength=0.3), tolerance=1e-9), batch()
    x[2, 0] = torch.nan
    x.requires_grad_()
    kept = [0, 1, 3, 4, 5]
    with pytest.warns(oc.SolveWarning, match="1 of 6"):
        solution = net.solve(x)
    assert solution.status[2] is oc.Status.NON_FINITE_INPUT
    scaled = layer(oc.HSIC(strength=0.3 * ROWS / 5), tolerance=1e-9)  # λB is the same
    torch.testing.assert_close(solution.values[0][kept], scaled(x[kept])[0], atol=1e-6, rtol=0.0)
    (grad,) = torch.autograd.grad(solution.values[0].sum(), x)
    assert bool(torch.isfinite(grad).all())
    assert bool((grad[2] == 0).all())


def test_it_warns_says_so_and_is_saved(tmp_path: Path) -> None:
    u, x = cp.Variable(2, name="u"), oc.Input(2, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u - x) + cp.square(cp.sum(u))))
    with pytest.warns(CouplingWarning, match="not certified"):
        net = oc.compile(problem, decorrelate=oc.HSIC(strength=0.1))
    assert "not certified" in net.plan.name
    assert "NO: R is not convex" in str(net.plan)
    oc.save(net, tmp_path / "x.opteq")
    again = oc.load(tmp_path / "x.opteq")
    data = torch.randn(5, 2)
    torch.testing.assert_close(again(data)[0], net(data)[0])


def on_rows() -> object:
    u = cp.Variable(5)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u - 1.0) + cp.norm1(cp.diff(u, 2))))
    return oc.compile(problem, decorrelate=oc.HSIC(strength=1.0))


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.CouplingWarning")
def test_misuse_is_told_with_its_remedy() -> None:
    for make in (
        lambda: oc.HSIC(strength=0.0),
        lambda: oc.HSIC(strength=1.0, kernel="gaussian"),
        lambda: layer(oc.HSIC(strength=1.0, between=("u", "v"))),
        on_rows,
    ):
        with pytest.raises((InputError, CompileError), match="Fix:"):
            make()
