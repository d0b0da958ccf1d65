"""A solution whose objective is infinite is none, however small its residuals are beside the sizes of the program."""

import cvxpy as cp
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.status import Status


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
@pytest.mark.parametrize("maximize", [False, True])
def test_a_sample_with_an_infinite_objective_is_not_converged(maximize: bool) -> None:
    """ln z beside z ≤ −1e-3, where y ≤ 1e5 allows violations of 0.1 at a tolerance of 1e-4; z ≤ 1 in the other one."""
    x, y, most = cp.Variable(2, name="x"), cp.Variable(name="y"), cp.Parameter(name="most")
    cost = -1e-2 * cp.log(x[0] + x[1]) - y
    sense = cp.Maximize(-cost) if maximize else cp.Minimize(cost)
    problem = cp.Problem(sense, [x[0] + x[1] <= most, y <= 1e5, x >= -5, x <= 5])
    layer = oc.compile(problem, inputs=[most], tolerance=1e-4, max_steps=2000).double()
    solution = layer.solve(torch.tensor([-1e-3, 1.0], dtype=torch.float64))
    infinite = ~torch.isfinite(solution.objective)
    assert infinite.tolist() == [True, False]
    assert solution.status[0] in (Status.PRIMAL_INFEASIBLE, Status.MAX_STEPS)
    assert solution.status[1] is Status.CONVERGED
