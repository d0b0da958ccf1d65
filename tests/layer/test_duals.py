"""Multipliers of the user's constraints, whatever the passes made of them, against Clarabel and differences."""

import warnings
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from tests.layer.dual_cases import CASES, DualCase

VALUE = 2e-5  # what Clarabel reaches on a sum of squares below a bound
SLOPE = 1e-4
STEP = 1e-5


def exact(problem: cp.Problem) -> list[list[np.ndarray]]:
    """Clarabel's duals, all parts of each constraint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may stop short of the tightest tolerances
        for tolerance in (1e-11, 1e-10, 1e-9):
            options = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tolerance)
            problem.solve(solver=cp.CLARABEL, **options)
            if problem.status == cp.OPTIMAL:
                break
    return [[np.asarray(d.value) for d in c.dual_variables] for c in problem.constraints]


def parts(dual: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return dual if isinstance(dual, tuple) else (dual,)


def batch(case: DualCase) -> Tensor:
    return torch.tensor(np.stack(case.values), dtype=torch.float64)


def every_dual(problem: cp.Problem) -> list[cp.Variable]:
    return [d for c in problem.constraints for d in c.dual_variables]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_duals_are_those_of_the_exact_solver(case: DualCase) -> None:
    b = cp.Parameter(case.shape, name="b")
    problem = case.build(b)
    layer = oc.compile(problem, inputs=[b], tolerance=1e-10)
    assert layer.plan.name == case.plan
    solution = layer.solve(batch(case))
    assert solution.status.all_converged
    for i, value in enumerate(case.values):
        b.value = value
        for ours, theirs, constraint in zip(solution.duals, exact(problem), problem.constraints, strict=True):
            for mine, other in zip(parts(ours), theirs, strict=True):
                found = mine[i].numpy().reshape(other.shape)
                np.testing.assert_allclose(found, other, atol=VALUE, rtol=VALUE, err_msg=str(constraint))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_gradients_of_duals_are_differences(case: DualCase) -> None:
    b = cp.Parameter(case.shape, name="b")
    problem = case.build(b)
    layer = oc.compile(problem, inputs=[b], outputs=every_dual(problem), tolerance=1e-11)
    point = torch.tensor(case.values[0], dtype=torch.float64, requires_grad=True)
    generator = torch.Generator().manual_seed(5)
    duals = layer(point)
    seeds = [torch.randn(d.shape, generator=generator, dtype=torch.float64) for d in duals]

    def total(at: Tensor) -> Tensor:
        return torch.stack([(s * d).sum() for s, d in zip(seeds, layer(at), strict=True)]).sum()

    (gradient,) = torch.autograd.grad(total(point), point)
    direction = torch.randn(case.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        ends = [total(point.detach() + sign * STEP * direction) for sign in (1, -1)]
    difference = (ends[0] - ends[1]) / (2 * STEP)
    torch.testing.assert_close((gradient * direction).sum(), difference, atol=SLOPE, rtol=SLOPE)


def test_outputs_may_mix_variables_constraints_and_dual_variables() -> None:
    x, t, b = cp.Variable(3, name="x"), cp.Variable(name="t"), cp.Parameter(3, name="b")
    cone, total = cp.SOC(t, x - b), cp.sum(x) == 1
    problem = cp.Problem(cp.Minimize(t + cp.sum_squares(x)), [cone, total])
    outputs = [total, x, cone, cone.dual_variables[1], 2 * t]
    layer = oc.compile(problem, inputs=[b], outputs=outputs, tolerance=1e-10)
    value = torch.tensor([[1.0, 0.5, -0.3], [0.2, 0.1, 2.0]], dtype=torch.float64)
    nu, point, rows, z, twice = layer(value)
    assert layer.output_names == ("dual[1]", "x", "dual[0]", "dual[0].1", "2 * t")
    assert (nu.shape, point.shape, rows.shape, z.shape, twice.shape) == ((2,), (2, 3), (2, 4), (2, 3), (2,))
    torch.testing.assert_close(rows[:, 1:], z)
    torch.testing.assert_close(rows[:, 0], torch.ones(2, dtype=torch.float64))  # the multiplier of t is its cost
    torch.testing.assert_close(2 * point + nu[:, None] - z, torch.zeros(2, 3, dtype=torch.float64), atol=1e-7, rtol=0)
    assert oc.verify(layer, value).ok


def test_saved_layers_return_the_same_duals(tmp_path: Path) -> None:
    x, b = cp.Variable(4, name="x"), cp.Parameter(4, name="b")
    constraints = [x >= 0, cp.sum(x) == 1, x <= 0.6]
    layer = oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(x - b)), constraints), inputs=[b], outputs=constraints)
    oc.save(layer, tmp_path / "layer.opteq")
    value = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for ours, loaded in zip(layer(value), oc.load(tmp_path / "layer.opteq")(value), strict=True):
        torch.testing.assert_close(ours, loaded)


def test_failed_samples_have_duals_without_gradient() -> None:
    x, b = cp.Variable(2), cp.Parameter(2)
    bound = x >= b
    layer = oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(x)), [bound, cp.sum(x) <= 1]), [b], [bound])
    value = torch.tensor([[0.2, 0.3], [2.0, 2.0], [-1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    with pytest.warns(oc.SolveWarning, match="1 of 3 samples"):
        (dual,) = layer(value)
    torch.testing.assert_close(dual[[0, 2]].detach(), 2 * value.detach()[[0, 2]].relu(), atol=1e-6, rtol=1e-6)
    (gradient,) = torch.autograd.grad(dual.sum(), value)
    assert (gradient[1] == 0).all()


def test_a_constraint_of_another_problem_is_refused() -> None:
    x = cp.Variable(2)
    with pytest.raises(oc.CompileError, match="no constraint of the problem"):
        oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= 1]), outputs=[x <= 2])
