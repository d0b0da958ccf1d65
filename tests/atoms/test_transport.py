"""The projection on the transport polytope: against Clarabel, by its optimality conditions, at hard data."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.atoms.transport import Transport
from opteq_cvx.errors import SolveWarning
from opteq_cvx.status import Status

EXACT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)


def project(v: Tensor, r: Tensor, c: Tensor) -> Tensor:
    data = {"rows": r.unsqueeze(-1), "columns": c.unsqueeze(-2)}
    return Transport().prox(v, torch.ones((1,) * v.ndim, dtype=v.dtype), data)


def drawn(m: int, n: int, scale: float, *, ones: bool, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of matrices and marginals, float64."""
    g = torch.Generator().manual_seed(seed)
    v = scale * torch.randn((6, m, n), generator=g, dtype=torch.float64)
    if ones:
        return v, torch.full((6, m), n / m, dtype=torch.float64), torch.ones(6, n, dtype=torch.float64)
    r, c = (0.1 + torch.rand((6, k), generator=g, dtype=torch.float64) for k in (m, n))
    return v, r, c * (r.sum(-1, keepdim=True) / c.sum(-1, keepdim=True))


def distance_to_optimal(v: Tensor, x: Tensor) -> float:
    """max ⟨v − x, y − x⟩ over y in the polytope of x's own sums, by an exact solver: 0 at the projection."""
    y = cp.Variable(x.shape, nonneg=True)
    toward = (v - x).numpy()
    fixed = [cp.sum(y, axis=1) == x.sum(1).numpy(), cp.sum(y, axis=0)[:-1] == x.sum(0).numpy()[:-1]]
    problem = cp.Problem(cp.Maximize(cp.sum(cp.multiply(toward, y - x.numpy()))), fixed)
    return float(problem.solve(solver=cp.HIGHS))


@pytest.mark.parametrize("ones", [True, False])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0, 1e4])
@pytest.mark.parametrize(("m", "n"), [(4, 4), (3, 7), (7, 3), (1, 4), (12, 12)])
def test_the_projection_is_feasible_and_optimal(m: int, n: int, scale: float, *, ones: bool) -> None:
    v, r, c = drawn(m, n, scale, ones=ones)
    x = project(v, r, c)
    size = 1.0 + scale
    assert float(x.min()) >= 0.0
    torch.testing.assert_close(x.sum(-1), r, rtol=0, atol=1e-14 * size * n)
    torch.testing.assert_close(x.sum(-2), c, rtol=0, atol=1e-14 * size * m)
    for i in range(2):
        assert distance_to_optimal(v[i], x[i]) <= 1e-9 * size * n


def test_it_is_clarabels() -> None:
    v, r, c = drawn(5, 6, 1.0, ones=False)
    x = project(v, r, c)
    y = cp.Variable((5, 6))
    sums = [y >= 0, cp.sum(y, axis=1) == r[0].numpy(), cp.sum(y, axis=0) == c[0].numpy()]
    cp.Problem(cp.Minimize(cp.sum_squares(y - v[0].numpy())), sums).solve(solver=cp.CLARABEL, **EXACT)
    np.testing.assert_allclose(x[0].numpy(), y.value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_single_precision_is_accurate_to_its_rounding(scale: float) -> None:
    v, r, c = drawn(9, 8, scale, ones=False)
    x = project(v.float(), r.float(), c.float())
    torch.testing.assert_close(x.double(), project(v, r, c), rtol=0, atol=4e-6 * (1 + scale))
    torch.testing.assert_close(x.sum(-2), c.float(), rtol=0, atol=1e-6 * (1 + scale))


def test_a_vertex_has_finite_derivatives() -> None:
    """A permutation matrix: each entry is a component of its own, and moving V moves nothing."""
    target = torch.eye(4, dtype=torch.float64)[[2, 0, 3, 1]]
    v = (10.0 * target).requires_grad_()
    r, c = (torch.ones(4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    x = project(v, r, c)
    torch.testing.assert_close(x, target, rtol=0, atol=1e-14)
    by_v, by_r, by_c = torch.autograd.grad((x * torch.arange(16.0).reshape(4, 4)).sum(), (v, r, c))
    torch.testing.assert_close(by_v, torch.zeros_like(by_v), rtol=0, atol=1e-6)
    assert bool(by_r.isfinite().all())
    assert bool(by_c.isfinite().all())


def test_sums_of_zero_remove_their_line() -> None:
    v, r, c = drawn(3, 4, 1.0, ones=False)
    r = torch.cat([r, torch.zeros(6, 1, dtype=r.dtype)], 1)
    x = project(torch.cat([v, v[:, :1] + 5.0], 1), r, c)
    assert float(x[:, 3].abs().max()) == 0.0
    torch.testing.assert_close(x[:, :3], project(v, r[:, :3], c), rtol=0, atol=1e-12)


def layer_of(m: int, n: int) -> oc.EquilibriumLayer:
    x, v = cp.Variable((m, n), nonneg=True), cp.Parameter((m, n), name="v")
    r, c = cp.Parameter(m, name="r"), cp.Parameter(n, name="c")
    sums = [cp.sum(x, axis=1) == r, cp.sum(x, axis=0) == c]
    return oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(x - v)), sums), [v, r, c])


def test_marginals_without_a_plan_are_infeasible_sample_by_sample() -> None:
    layer = layer_of(3, 3)
    v, r = torch.zeros(3, 3, 3, dtype=torch.float64), torch.ones(3, 3, dtype=torch.float64)
    c = r.clone()
    c[1, 0] = 1.5
    r = r.clone()
    r[2] = c[2] = torch.tensor([-1.0, 2.0, 2.0])
    with pytest.warns(SolveWarning, match="2 of 3 samples failed"):
        solution = layer.solve(v, r, c)
    assert list(solution.status) == [Status.CONVERGED, Status.PRIMAL_INFEASIBLE, Status.PRIMAL_INFEASIBLE]


def test_gradients_through_the_layer_are_differences() -> None:
    layer = layer_of(2, 3)
    v, r, c = drawn(2, 3, 0.3, ones=False, seed=2)
    v, r, c = (t[:2].clone().requires_grad_() for t in (v, r, c))

    def f(v: Tensor, r: Tensor, free: Tensor) -> Tensor:
        last = r.sum(-1, keepdim=True) - free.sum(-1, keepdim=True)
        return layer(v, r, torch.cat([free, last], -1))[0]

    assert torch.autograd.gradcheck(f, (v, r, c[:, :-1].detach().requires_grad_()), atol=1e-6)
