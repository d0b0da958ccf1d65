"""What a Solution proves: residuals, gap and distance against the exact solver, rays against their definitions."""

import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.solution import detach
from opteq_cvx.status import Status

N = 5
RNG = np.random.default_rng(2)
HALF = RNG.normal(size=(N, N))
CURVED = HALF @ HALF.T + np.eye(N)
ROWS = RNG.normal(size=(3, N))
TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)


def values(rows: int) -> Tensor:
    return torch.randn(rows, N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def programs() -> list[object]:
    x, b = cp.Variable(N, name="x"), cp.Parameter(N, name="b")
    near, curved = cp.sum_squares(x - b), cp.quad_form(x, CURVED) - b @ x
    rows = [
        ("closed form", cp.Problem(cp.Minimize(near), [x >= 0, cp.sum(x) == 1])),
        ("forward–backward", cp.Problem(cp.Minimize(curved + cp.norm1(x)), [x >= -0.1])),
        ("forward–backward", cp.Problem(cp.Maximize(-curved), [cp.norm2(x) <= 0.3])),
        ("Douglas–Rachford", cp.Problem(cp.Minimize(curved), [ROWS @ x <= -0.1])),
        ("forward–backward", cp.Problem(cp.Minimize(b @ x), [cp.norm_inf(x) <= 1, cp.sum(x) == 0.5])),
    ]
    return [pytest.param(p, b, name, id=f"{name}-{i}") for i, (name, p) in enumerate(rows)]


@pytest.mark.parametrize("tolerance", [1e-9, 1e-3])
@pytest.mark.parametrize(("problem", "b", "plan"), programs())
def test_bounds_hold_at_every_accuracy(problem: cp.Problem, b: cp.Parameter, plan: str, tolerance: float) -> None:
    layer, data = oc.compile(problem, inputs=[b], tolerance=tolerance), values(4)
    assert layer.plan.name == plan
    solution = layer.solve(data)
    found, variables = solution.certificate, solution.variables
    assert found is not None
    sign = 1 if isinstance(problem.objective, cp.Minimize) else -1
    for i, value in enumerate(data):
        b.value = value.numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it may stop a little short
            problem.solve(solver=cp.CLARABEL, **TIGHT)
        rounding = 1e-6 * (1 + abs(problem.value))
        if bool(found.strong[i]):
            assert sign * float(found.bound[i]) <= sign * problem.value + rounding
        exact = np.concatenate([np.ravel(v.value) for v in problem.variables()])
        ours = np.concatenate([variables[v.name()][i].numpy().ravel() for v in problem.variables()])
        assert np.linalg.norm(ours - exact) <= float(found.distance[i]) + 1e-5  # Clarabel's accuracy in x
        for v in problem.variables():
            v.value = variables[v.name()][i].numpy()
        outside = max(float(np.max(c.violation())) for c in problem.constraints)
        assert float(found.primal[i]) == pytest.approx(outside, abs=1e-12)
    if tolerance < 1e-6:
        assert float(found.gap.abs().max()) < 1e-6
        assert float(found.dual.max()) < 1e-6


def test_a_certificate_is_part_of_the_solutions_words() -> None:
    x, b = cp.Variable(N), cp.Parameter(N)
    layer = oc.compile(cp.Problem(cp.Minimize(cp.quad_form(x, CURVED) - b @ x), [x >= 0]), [b])
    solution = layer.solve(values(3))
    assert "gap<=" in repr(solution)
    assert "distance<=" in repr(solution)
    assert detach(solution).certificate is None


def mixed() -> tuple[cp.Problem, list[cp.Parameter]]:
    """min ⟨c, x⟩ with x ≥ b and Σx ≤ 1, its last entry free below: any status, by data."""
    x, b, c = cp.Variable(3, name="x"), cp.Parameter(2, name="b"), cp.Parameter(3, name="c")
    return cp.Problem(cp.Minimize(c @ x), [x[:2] >= b, cp.sum(x[:2]) <= 1, x[2] <= 1]), [b, c]


def rows() -> tuple[Tensor, Tensor]:
    b = torch.tensor([[0.1, 0.2], [2.0, 2.0], [0.0, 0.0], [0.0, torch.nan], [0.3, 0.1], [-1.0, 0.5]])
    c = torch.tensor([[1.0, 1, -1], [1, 1, -1], [1, 1, 1], [1, 1, -1], [1, 2, -1], [2, -1, -3]])
    return b.double(), c.double()


def test_one_infeasible_one_unbounded_and_one_nan_leave_the_others_right() -> None:
    problem, parameters = mixed()
    layer = oc.compile(problem, inputs=parameters, tolerance=1e-9)
    data = tuple(t.requires_grad_() for t in rows())
    with pytest.warns(oc.SolveWarning, match="3 of 6 samples failed"):
        solution = layer.solve(*data)
    bad = {1: Status.PRIMAL_INFEASIBLE, 2: Status.DUAL_INFEASIBLE, 3: Status.NON_FINITE_INPUT}
    assert list(solution.status) == [bad.get(i, Status.CONVERGED) for i in range(6)]
    assert solution.masked == 3
    assert float(solution.objective[1].detach()) == np.inf
    assert float(solution.objective[2].detach()) == -np.inf
    for i in (0, 4, 5):
        for parameter, value in zip(parameters, data, strict=True):
            parameter.value = value[i].detach().numpy()
        assert float(solution.objective[i].detach()) == pytest.approx(
            problem.solve(solver=cp.CLARABEL, **TIGHT), abs=1e-7
        )
    gradients = torch.autograd.grad(solution.values[0].sum(), data)
    assert all((g[[1, 2, 3]] == 0).all() and torch.isfinite(g).all() for g in gradients)


def test_rays_prove_what_the_status_says() -> None:
    problem, parameters = mixed()
    layer = oc.compile(problem, inputs=parameters)
    b, c = rows()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", oc.SolveWarning)
        rays = layer.solve(b, c).rays
    assert rays is not None
    assert rays.certified.tolist() == [False, True, True, False, False, False]
    (lower,), (total,), (last,) = rays.duals
    assert float(lower[1].min()) >= 0
    assert float(total[1]) > 0
    torch.testing.assert_close(lower[1], total[1].expand(2), atol=1e-6, rtol=0)  # Aᵀy = 0
    assert float(b[1] @ lower[1] - total[1] - last[1]) > 0  # and the sum of the constraints reads 0 ≥ positive
    direction = rays.variables["x"][2]
    assert float(c[2] @ direction) < 0
    assert (direction[:2] >= -1e-6).all()
    assert float(direction[2]) <= 1e-6
    assert (rays.variables["x"][[0, 1, 3, 4, 5]] == 0).all()


@pytest.mark.parametrize(
    ("goal", "status"),
    [(0.0, Status.PRIMAL_INFEASIBLE), (1.0, Status.PRIMAL_INFEASIBLE)],
    ids=["closed_form", "iterated"],
)
def test_crossed_bounds_that_passes_merged_have_a_ray(goal: float, status: Status) -> None:
    x, b = cp.Variable(N, name="x"), cp.Parameter(N, name="b")
    cost = cp.sum_squares(x) + goal * cp.quad_form(x, CURVED)
    layer = oc.compile(cp.Problem(cp.Minimize(cost), [x >= b, x <= 0]), [b])
    with pytest.warns(oc.SolveWarning, match="primal_infeasible"):
        solution = layer.solve(torch.tensor([[-1.0, -1, 1, -1, -1]], dtype=torch.float64))
    assert solution.rays is not None
    (lower,), (upper,) = solution.rays.duals
    expected = torch.tensor([[0.0, 0, 1, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(lower / lower.sum(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(lower, upper, atol=1e-6, rtol=0)
    assert solution.status[0] is status


def test_throw_names_the_counts_and_the_worst_sample() -> None:
    problem, parameters = mixed()
    layer = oc.compile(problem, inputs=parameters)
    b, c = rows()
    with pytest.raises(oc.SolveError, match=r"3 of 6 samples failed \(.*1 primal_infeasible.*worst is sample \d"):
        layer.solve(b, c, throw=True)
    good = [0, 4, 5]
    layer(b[good], c[good], throw=True)
    with pytest.raises(oc.SolveError, match="the only sample: primal_infeasible"):
        layer(b[1], c[1], throw=True)
