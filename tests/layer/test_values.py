"""Every splitting's values, batch rules and gradients against Clarabel and differences of it."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from tests.layer.cases import CASES, Case

SAMPLES = 4
EXACT = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}
VALUE = 1e-6  # the exact solver itself is good to about 1e-7 near a kink
SLOPE = 1e-4  # differences of an exact solver lose half of its digits


def draw(case: Case, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    samples = [case.draw(rng) for _ in range(count)]
    return [np.stack(column) for column in zip(*samples, strict=True)]


def exact(
    problem: cp.Problem, inputs: list[cp.Parameter], outputs: list[cp.Expression], values: list[np.ndarray]
) -> list[np.ndarray]:
    for parameter, value in zip(inputs, values, strict=True):
        parameter.value = value
    problem.solve(solver="CLARABEL", ignore_dpp=True, **EXACT)
    return [np.asarray(o.value) for o in outputs]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_values_match_the_exact_solver(case: Case) -> None:
    problem, inputs, outputs = case.make()
    layer = oc.compile(problem, inputs=inputs, outputs=outputs, tolerance=1e-10).double()
    assert layer.plan.name == case.splitting
    arrays = draw(case, SAMPLES)
    solution = layer.solve(*map(torch.tensor, arrays))
    assert solution.status.all_converged
    for i in range(SAMPLES):
        expected = exact(problem, inputs, outputs, [a[i] for a in arrays])
        for got, want in zip(solution.values, expected, strict=True):
            np.testing.assert_allclose(got[i].detach().numpy(), want, atol=VALUE * max(1.0, np.abs(want).max()))
        assert solution.objective[i].item() == pytest.approx(problem.value, abs=VALUE, rel=VALUE)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_gradients_match_differences_of_the_exact_solver(case: Case) -> None:
    problem, inputs, outputs = case.make()
    layer = oc.compile(problem, inputs=inputs, outputs=outputs, tolerance=1e-11).double()
    rng = np.random.default_rng(5)
    (arrays,) = [[a[0] for a in draw(case, 1)]]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    values = layer(*tensors)
    seeds = [rng.normal(size=tuple(v.shape)) for v in values]
    grads = torch.autograd.grad(sum((v * torch.tensor(s)).sum() for v, s in zip(values, seeds, strict=True)), tensors)
    for position, grad in enumerate(grads):
        direction = rng.normal(size=arrays[position].shape)
        h, ends = 1e-4, []
        for sign in (1.0, -1.0):
            moved = [a + sign * h * direction if i == position else a for i, a in enumerate(arrays)]
            ends.append(
                sum(
                    float((np.asarray(o) * s).sum())
                    for o, s in zip(exact(problem, inputs, outputs, moved), seeds, strict=True)
                )
            )
        slope = (ends[0] - ends[1]) / (2 * h)
        assert float((grad.numpy() * direction).sum()) == pytest.approx(slope, abs=SLOPE, rel=SLOPE)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_batch_is_a_loop(case: Case) -> None:
    problem, inputs, outputs = case.make()
    layer = oc.compile(problem, inputs=inputs, outputs=outputs, tolerance=1e-10).double()
    arrays = [torch.tensor(a) for a in draw(case, 6)]
    batched = layer(*(a.reshape(2, 3, *a.shape[1:]) for a in arrays))
    for i in range(6):
        for one, many in zip(layer(*(a[i] for a in arrays)), batched, strict=True):
            torch.testing.assert_close(many.reshape(6, *one.shape)[i], one, atol=1e-7, rtol=1e-7)
