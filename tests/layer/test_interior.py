"""The interior point finish: its systems against dense linear algebra, its points against Clarabel, hard programs."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.splitting import interior
from opteq_cvx.splitting.kkt import Optimality, proximal
from opteq_cvx.splitting.sizes import optimality
from opteq_cvx.splitting.system import matmul

F64 = torch.float64
REACHED = 1e-9  # errors the method reaches in float64
SPREAD = 1e10  # of the slacks of rows in one system


def degenerate(seed: int, n: int = 12, rows: int = 6) -> tuple[np.ndarray, ...]:
    """P, q, K, l, u: columns and rows scaled by 10^±2, fewer positive entries than equalities, one equality twice."""
    rng = np.random.default_rng(seed)
    a = 10.0 ** rng.uniform(-2, 2, size=(rows, 1)) * rng.normal(size=(rows, n)) * 10.0 ** rng.uniform(-2, 2, size=n)
    a[-1] = 2 * a[-2]
    x = np.where(np.arange(n) < rows - 3, rng.uniform(0.5, 1.0, size=n), 0.0)
    slack = np.where((x > 0) | (np.arange(n) % 2 == 0), 0.0, rng.uniform(0.5, 1.0, size=n))
    p = np.diag(np.where(np.arange(n) < 2, 1.0, 0.0))
    q = slack - p @ x - a.T @ rng.normal(size=rows)
    lower = np.concatenate([a @ x, np.zeros(n), np.full(1, -np.inf)])
    upper = np.concatenate([a @ x, np.where(np.arange(n) % 3 == 0, 2.0, np.inf), np.full(1, np.inf)])
    return p, q, np.vstack([a, np.eye(n), np.ones((1, n))]), lower, upper


def exact(p: np.ndarray, q: np.ndarray, k: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The optimal value by Clarabel."""
    x = cp.Variable(q.size)
    low, high = np.isfinite(lower), np.isfinite(upper)
    limits = [k[low] @ x >= lower[low], k[high] @ x <= upper[high]]
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, cp.psd_wrap(p)) + q @ x), limits)
    return float(problem.solve(solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11))


def test_degenerate_programs_of_a_batch_reach_rounding() -> None:
    data = [degenerate(seed) for seed in range(6)]
    p, q, k, lower, upper = (torch.as_tensor(np.stack(parts)) for parts in zip(*data, strict=True))
    zero = torch.zeros_like(lower)

    def residuals(x: Tensor, w: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return optimality(x, w, y, q, zero, matmul(x, k.mT), matmul(x, p), matmul(y, k))

    found = interior.finish(p, q, k, lower, upper, residuals, batch=len(data), tolerance=1e-7)
    assert float(found.error.max()) <= REACHED
    values = (0.5 * matmul(found.x, p) * found.x + q * found.x).sum(dim=1)
    expected = torch.tensor([exact(*d) for d in data], dtype=F64)
    assert torch.allclose(values, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per sample"])
def test_systems_are_solved_whatever_the_slacks(shared: bool) -> None:
    g = torch.Generator().manual_seed(0)
    batch, n, general = 3, 5, 4
    root = torch.randn(1 if shared else batch, n, n, generator=g, dtype=F64)
    k = torch.cat(
        [torch.randn(len(root), general, n, generator=g, dtype=F64), torch.eye(n, dtype=F64).expand(len(root), n, n)], 1
    )
    p, m = root.mT @ root, general + n
    active = torch.ones(batch, m, dtype=torch.bool)
    active[1, 2] = active[2, general] = False
    s = SPREAD ** (2 * torch.rand(batch, m, generator=g, dtype=F64) - 1)
    s[:, 0] = 0.0  # an equality
    right, r = torch.randn(batch, n, generator=g, dtype=F64), torch.randn(batch, m, generator=g, dtype=F64)
    x, y = Optimality.of(p, k, active).factor(s).solve(right, r)
    for i in range(batch):
        on = active[i].numpy()
        rows, own = k[0 if shared else i].numpy()[on], s[i].numpy()[on] + proximal(F64)
        curved = p[0 if shared else i].numpy() + proximal(F64) * np.eye(n)
        dense = np.block([[curved, rows.T], [rows / (1 + own)[:, None], -np.diag(own / (1 + own))]])
        expected = np.linalg.solve(dense, np.concatenate([right[i], r[i].numpy()[on] / (1 + own)]))
        assert np.allclose(x[i], expected[:n], rtol=1e-7, atol=1e-9)
        assert np.allclose(y[i].numpy()[on], expected[n:], rtol=1e-7, atol=1e-9)
        assert not y[i].numpy()[~on].any()


def test_a_layer_ends_with_it_where_newton_steps_get_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the Newton steps stopped at once, only the interior point method is left to reach the tolerance."""
    p, q, k, lower, upper = degenerate(7)
    calls, n = list[int](), q.size
    plain = interior.finish

    def counted(*args: Tensor, **options: int) -> interior.Found:
        calls.append(options["batch"])
        return plain(*args, **options)

    monkeypatch.setattr("opteq_cvx.adaptive.POLISH_STEPS", 1)
    monkeypatch.setattr(interior, "finish", counted)
    x, c = cp.Variable(n, name="x"), oc.Input(n, name="c")
    limits = [k[:6] @ x == lower[:6], x >= 0, x[::3] <= 2]
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, cp.psd_wrap(p)) + c @ x), limits)
    layer = oc.compile(problem, tolerance=1e-7, splitting=oc.DouglasRachford(factor="dense")).double()
    costs = np.stack([q, 1.5 * q])
    solution = layer.solve(torch.as_tensor(costs))
    assert solution.status.all_converged
    assert calls
    for value, cost in zip(solution.objective.detach(), costs, strict=True):
        assert float(value) == pytest.approx(exact(p, cost, k, lower, upper), rel=1e-7, abs=1e-7)


def test_multipliers_of_a_repeated_equality_stay_small() -> None:
    """A row said twice leaves its two multipliers free to run away in opposite directions; they must not."""
    k = torch.tensor([[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]], dtype=F64)
    p, s = torch.zeros(1, 3, 3, dtype=F64), torch.zeros(1, 2, dtype=F64)
    active = torch.ones(1, 2, dtype=torch.bool)
    off = torch.tensor([[1.0, 1.0 + 1e-12]], dtype=F64)  # rounding makes the two rows disagree
    _, y = Optimality.of(p, k, active).factor(s).solve(torch.ones(1, 3, dtype=F64), off)
    assert float(y.abs().max()) < 1.0 / REACHED**0.5
