"""Bounds that leave a function no point of its domain make a program infeasible, not converged at infinity."""

import warnings

import cvxpy as cp
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.status import Status

FUNCTIONS = {
    "log": lambda x: -cp.sum(cp.log(x)),
    "inv_pos": lambda x: cp.sum(cp.inv_pos(x)),
    "entropy": lambda x: -cp.sum(cp.entr(x)),
    "sqrt": lambda x: -cp.sum(cp.sqrt(x)),
}
BOUNDS = {"interior": 0.5, "outside": -1.0}
CLOSED = ("entropy", "sqrt")  # finite on the boundary of their domains


def solved(name: str, bound: float | cp.Parameter, *values: float) -> oc.Solution:
    x, w = cp.Variable(3, name="x"), oc.Weight(name="w", nonneg=True, init=0.7)
    problem = cp.Problem(cp.Minimize(w * FUNCTIONS[name](x) + cp.sum_squares(x - 1)), [x <= bound])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", oc.SolveWarning)
        return oc.compile(problem, outputs=[x]).double().solve(*(torch.tensor(v).double() for v in values))


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_status_is_that_of_the_exact_solver(name: str, bound: str) -> None:
    x = cp.Variable(3)
    exact = cp.Problem(cp.Minimize(0.7 * FUNCTIONS[name](x) + cp.sum_squares(x - 1)), [x <= BOUNDS[bound]])
    exact.solve(solver="CLARABEL")
    wanted = {"optimal": Status.CONVERGED, "infeasible": Status.PRIMAL_INFEASIBLE}[exact.status]
    solution = solved(name, BOUNDS[bound])
    assert solution.status[()] is wanted
    assert float(solution.objective.detach()) == pytest.approx(float(exact.value), rel=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_only_the_boundary_is_left(name: str) -> None:
    """x ≤ 0 leaves x = 0, where log x and 1/x are infinite."""
    solution = solved(name, 0.0)
    assert solution.status[()] is (Status.CONVERGED if name in CLOSED else Status.PRIMAL_INFEASIBLE)
    assert bool(torch.isfinite(solution.objective)) == (name in CLOSED)


def test_sample_by_sample() -> None:
    bound = oc.Input(name="r")
    solution = solved("log", bound, [1.0, 0.0, -2.0, 1e-3])
    good, bad = Status.CONVERGED, Status.PRIMAL_INFEASIBLE
    assert [solution.status[i] for i in range(4)] == [good, bad, bad, good]


def test_a_weight_of_zero_removes_the_function_and_its_domain() -> None:
    x, w = cp.Variable(3, name="x"), oc.Input(name="w", nonneg=True)
    problem = cp.Problem(cp.Minimize(-w * cp.sum(cp.log(x)) + cp.sum_squares(x - 1)), [x <= -1])
    with pytest.warns(oc.SolveWarning, match="1 of 2"):
        solution = oc.compile(problem, outputs=[x]).double().solve(torch.tensor([0.0, 0.1]).double())
    assert [solution.status[i] for i in range(2)] == [Status.CONVERGED, Status.PRIMAL_INFEASIBLE]
    assert torch.equal(solution.values[0][0], -torch.ones(3).double())
    assert solution.objective[0].item() == pytest.approx(12.0)


def test_data_of_each_sample_beside_bounds() -> None:
    """Hinges do not say that they are finite everywhere, and their places may differ from sample to sample."""
    x, h = cp.Variable(5, name="x"), cp.Parameter(5, name="h")
    objective = cp.sum(cp.pos(x - h)) + 0.3 * cp.sum(cp.pos(x + 1)) + cp.sum_squares(x - 2)
    problem = cp.Problem(cp.Minimize(objective), [x >= -2, x <= 1])
    values = torch.tensor(
        [[0.3, -0.2, 1.5, 1.2, 0.9], [-1.5, 0.4, 0.8, -3.0, 1.1], [1.0, 0.0, -1.0, 2.0, -2.0]]
    ).double()
    got = oc.compile(problem, inputs=[h], outputs=[x], splitting=oc.DavisYin()).double().solve(values).values[0]
    for i in range(3):
        h.value = values[i].numpy()
        problem.solve(solver="CLARABEL")
        assert got[i].numpy() == pytest.approx(x.value, abs=1e-5)
