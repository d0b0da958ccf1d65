"""PDHG: the programs of every splitting once more, solved by products only, against Clarabel and Douglas–Rachford."""

from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.asked import choice
from opteq_cvx.status import Status
from tests.layer.cases import CASES, Case
from tests.layer.test_values import SLOPE, VALUE, draw, exact

SMALL = [c for c in CASES if c.name in ("lasso", "box_qp", "equality_qp", "inequalities")]


def make(
    case: Case, tolerance: float
) -> tuple[oc.EquilibriumLayer, cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    problem, inputs, outputs = case.make()
    options = {"tolerance": tolerance, "splitting": "primal-dual", "max_steps": 40_000}
    return oc.compile(problem, inputs=inputs, outputs=outputs, **options).double(), problem, inputs, outputs


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_values_match_the_exact_solver(case: Case) -> None:
    layer, problem, inputs, outputs = make(case, 1e-9)
    assert layer.plan.name == "PDHG"
    arrays = draw(case, 3)
    solution = layer.solve(*map(torch.tensor, arrays))
    assert solution.status.all_converged
    for i in range(3):
        expected = exact(problem, inputs, outputs, [a[i] for a in arrays])
        for got, want in zip(solution.values, expected, strict=True):
            np.testing.assert_allclose(got[i].detach().numpy(), want, atol=VALUE * max(1.0, np.abs(want).max()))
        assert solution.objective[i].item() == pytest.approx(problem.value, abs=VALUE, rel=VALUE)
        for constraint, dual in zip(problem.constraints, solution.duals, strict=True):
            np.testing.assert_allclose(dual[i].detach().numpy(), constraint.dual_value, atol=1e-5)
        alone = layer(*(torch.tensor(a[i]) for a in arrays))
        for got, one in zip(solution.values, alone, strict=True):
            torch.testing.assert_close(got[i], one, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_gradients_match_differences_of_the_exact_solver(case: Case) -> None:
    layer, problem, inputs, outputs = make(case, 1e-10)
    rng = np.random.default_rng(5)
    arrays = [a[0] for a in draw(case, 1)]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    values = layer(*tensors)
    seeds = [rng.normal(size=tuple(v.shape)) for v in values]
    grads = torch.autograd.grad(sum((v * torch.tensor(s)).sum() for v, s in zip(values, seeds, strict=True)), tensors)
    for position, grad in enumerate(grads):
        direction, ends = rng.normal(size=arrays[position].shape), []
        for sign in (1.0, -1.0):
            moved = [a + sign * 1e-4 * direction if k == position else a for k, a in enumerate(arrays)]
            found = exact(problem, inputs, outputs, moved)
            ends.append(sum(float((s * v).sum()) for s, v in zip(seeds, found, strict=True)))
        slope = (ends[0] - ends[1]) / 2e-4
        assert float((grad.numpy() * direction).sum()) == pytest.approx(slope, abs=SLOPE, rel=SLOPE)


@pytest.mark.parametrize("case", SMALL, ids=lambda c: c.name)
def test_gradcheck_and_gradgradcheck(case: Case) -> None:
    layer = make(case, 1e-12)[0]
    inputs = [torch.tensor(a, requires_grad=True) for a in draw(case, 1)]
    assert torch.autograd.gradcheck(layer, inputs, eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)
    assert torch.autograd.gradgradcheck(layer, inputs, eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True)


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
def test_infeasible_and_unbounded_samples_beside_solvable_ones() -> None:
    h, c = cp.Parameter(2, name="h"), cp.Parameter(2, name="c")
    x = cp.Variable(2, name="x")
    problem = cp.Problem(cp.Minimize(c @ x), [x[0] + x[1] <= h[0], x[0] + x[1] >= h[1], x[0] - x[1] == 0])
    layer = oc.compile(problem, inputs=[h, c], splitting="primal-dual", tolerance=1e-7).double()
    hs = torch.tensor([[2.0, 1.0], [1.0, 2.0], [5.0, 1.0]], dtype=torch.float64)
    cs = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    solution = layer.solve(hs, cs)
    assert list(solution.status) == [Status.CONVERGED, Status.PRIMAL_INFEASIBLE, Status.CONVERGED]
    torch.testing.assert_close(solution.values[0][0], hs.new_tensor([0.5, 0.5]), atol=1e-6, rtol=0)
    free = cp.Problem(cp.Minimize(c @ x), [x[0] + x[1] >= h[0], x[0] - x[1] <= h[1]])
    layer = oc.compile(free, inputs=[h, c], splitting="primal-dual", tolerance=1e-7).double()
    solution = layer.solve(hs[:2], torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64))
    assert list(solution.status) == [Status.DUAL_INFEASIBLE, Status.CONVERGED]


def test_denoising_of_an_image_is_matrix_free_by_choice_and_its_gap_closes() -> None:
    n = 16
    y, lam = oc.Input((n, n), name="y"), oc.Weight(name="lam", nonneg=True, init=0.2)
    image = cp.Variable((n, n), name="X")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(image - y) + lam * cp.tv(image)))
    layer = oc.compile(problem, splitting="primal-dual", tolerance=1e-6).double()
    noisy = torch.rand(2, n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solution = layer.solve(noisy)
    assert solution.status.all_converged
    assert (solution.certificate.gap.abs() <= 1e-5 * solution.objective.abs()).all()
    assert all(t.numel() <= 2 * 3 * n * n for t in layer.plan.splitting.theta(_environment(layer, noisy)))
    y.value = noisy[0].numpy()
    problem.solve(solver="CLARABEL")
    assert solution.objective[0].item() == pytest.approx(problem.value, rel=1e-5)


def _environment(layer: oc.EquilibriumLayer, noisy: torch.Tensor) -> Environment:
    values = {"y": noisy, "lam": layer.weights.value("lam").detach()[None]}
    return Environment(values, noisy.dtype, noisy.device)


def test_the_plan_takes_products_only_where_a_factor_is_too_large() -> None:
    y, image = oc.Input((96, 96), name="y"), cp.Variable((96, 96), name="X")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(image - y) + 0.1 * cp.tv(image)))
    plan = oc.explain(problem).plan
    assert plan.name == "PDHG"
    assert "norm2(" in str(plan)
    assert "dense factor of 9216 unknowns" in str(plan)
    assert "Douglas–Rachford" in str(oc.explain(problem, splitting="douglas-rachford").plan)


def test_a_splitting_that_does_not_fit_is_refused_in_the_words_of_the_program() -> None:
    x, y = cp.Variable(5, name="x"), oc.Input(5, name="y")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - y)), [cp.cumsum(x) <= 1])
    with pytest.raises(oc.CompileError, match=r"cumsum\(x, axis=0\) <= 1"):
        oc.compile(problem, splitting="forward-backward")
    with pytest.raises(oc.CompileError, match="one of closed-form, forward-backward"):
        choice("simplex")


def test_a_saved_layer_keeps_its_splitting(tmp_path: Path) -> None:
    x, y = cp.Variable(5, name="x"), oc.Input(5, name="y")
    layer = oc.compile(
        cp.Problem(cp.Minimize(cp.sum_squares(x - y)), [cp.sum(x) == 1]), splitting="primal-dual"
    ).double()
    oc.save(layer, tmp_path / "layer.opteq")
    again = oc.load(tmp_path / "layer.opteq")
    assert again.plan.name == "PDHG"
    point = torch.arange(5.0, dtype=torch.float64)
    torch.testing.assert_close(again(point)[0], layer(point)[0])


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
def test_samples_with_matrices_of_their_own_are_certified() -> None:
    a, c = oc.Input((2, 3), name="a"), oc.Input(3, name="c")
    x = cp.Variable(3, name="x")
    problem = cp.Problem(cp.Minimize(c @ x + cp.norm1(x)), [a @ x <= 1, x >= -1])
    layer = oc.compile(problem, splitting="primal-dual").double()
    rows, costs = np.array([np.eye(2, 3), 2 * np.ones((2, 3)), np.eye(2, 3)]), -2.0 * np.ones((3, 3))
    solution = layer.solve(torch.tensor(rows), torch.tensor(costs))
    for i, (row, cost) in enumerate(zip(rows, costs, strict=True)):
        a.value, c.value = row, cost
        problem.solve(solver=cp.CLARABEL)
        expected = {"optimal": Status.CONVERGED, "unbounded": Status.DUAL_INFEASIBLE}[problem.status]
        assert solution.status[i] is expected
