"""Entropic optimal transport in closed form: values, duals and gradients, hard temperatures, batches."""

from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.errors import SolveWarning
from opteq_cvx.status import Status

EXACT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)


def declared(
    epsilon: float, m: int, n: int, *, last: bool = True
) -> tuple[cp.Problem, cp.Variable, list[cp.Parameter]]:
    """The problem, X, and the parameters C, r, c; without `last` the last column's sum follows from the others."""
    x, cost = cp.Variable((m, n), name="X"), cp.Parameter((m, n), name="C")
    r, c = cp.Parameter(m, name="r"), cp.Parameter(n if last else n - 1, name="c")
    goal = cp.sum(cp.multiply(cost, x)) - epsilon * cp.sum(cp.entr(x))
    columns = cp.sum(x, axis=0)
    sums = [cp.sum(x, axis=1) == r, (columns if last else columns[:-1]) == c]
    return cp.Problem(cp.Minimize(goal), sums), x, [cost, r, c]


def drawn(m: int, n: int, batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    cost = torch.rand((batch, m, n), generator=g, dtype=torch.float64)
    r, c = (0.2 + torch.rand((batch, k), generator=g, dtype=torch.float64) for k in (m, n))
    return cost, r, c * (r.sum(-1, keepdim=True) / c.sum(-1, keepdim=True))


@pytest.mark.parametrize(("m", "n"), [(4, 5), (5, 3)])
def test_it_is_clarabels(m: int, n: int) -> None:
    problem, x, parameters = declared(0.2, m, n, last=False)
    layer = oc.compile(problem, parameters, [x])
    assert layer.plan.name == "closed form"
    assert "Sinkhorn" in str(layer.plan)
    cost, r, c = drawn(m, n)
    solution = layer.solve(cost, r, c[:, :-1])
    assert solution.status.all_converged
    for parameter, value in zip(parameters, (cost, r, c[:, :-1]), strict=True):
        parameter.value = value[1].numpy()
    problem.solve(solver=cp.CLARABEL, **EXACT)
    np.testing.assert_allclose(solution.values[0][1].numpy(), x.value, rtol=0, atol=1e-6)
    np.testing.assert_allclose(float(solution.objective[1]), problem.value, rtol=0, atol=1e-7)
    for ours, constraint in zip(solution.duals, problem.constraints, strict=True):
        np.testing.assert_allclose(ours[1].detach().numpy(), constraint.dual_value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("epsilon", [10.0, 0.1, 0.01, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sums_and_scaling_hold_at_any_temperature(epsilon: float, dtype: torch.dtype) -> None:
    """The sums hold, and C/ε + ln X is a sum of potentials, wherever X is not tiny."""
    problem, x, parameters = declared(epsilon, 7, 6)
    layer = oc.compile(problem, parameters, [x])
    cost, r, c = (t.to(dtype) for t in drawn(7, 6))
    (plan,) = layer(cost, r, c)
    close = 16 * torch.finfo(dtype).eps * (1 + 1 / epsilon)  # rounding of the exponent
    torch.testing.assert_close(plan.sum(-1), r, rtol=0, atol=close)
    torch.testing.assert_close(plan.sum(-2), c, rtol=0, atol=close)
    if dtype == torch.float64 and epsilon >= 0.01:
        k = cost / epsilon + plan.log()
        mixed = k - k.mean(-1, keepdim=True) - k.mean(-2, keepdim=True) + k.mean((-1, -2), keepdim=True)
        assert float(mixed.abs().max()) <= 1e-9


def test_gradients_are_differences() -> None:
    problem, x, parameters = declared(0.3, 3, 4, last=False)
    layer: Callable[..., tuple[Tensor, ...]] = oc.compile(problem, parameters, [x])
    cost, r, c = drawn(3, 4, 2)
    values = tuple(t.clone().requires_grad_() for t in (cost, r, c[:, :-1]))
    assert torch.autograd.gradcheck(lambda *v: layer(*v)[0], values, rtol=1e-5, atol=1e-7)


def test_totals_that_differ_are_infeasible() -> None:
    problem, x, parameters = declared(0.3, 3, 4)
    layer = oc.compile(problem, parameters, [x])
    cost, r, c = drawn(3, 4)
    c[1] *= 1.1
    with pytest.warns(SolveWarning, match="1 of 3"):
        solution = layer.solve(cost, r, c)
    assert list(solution.status) == [Status.CONVERGED, Status.PRIMAL_INFEASIBLE, Status.CONVERGED]


def test_more_than_a_linear_function_beside_it_is_another_form() -> None:
    problem, x, parameters = declared(0.3, 3, 4)
    more = cp.Problem(cp.Minimize(problem.objective.args[0] + cp.sum_squares(x)), problem.constraints)
    assert oc.compile(more, parameters, [x]).plan.name != "closed form"
