"""A solution whose objective is infinite is none, however small its residuals are beside the sizes of the program."""

import cvxpy as cp
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.status import Status


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
@pytest.mark.parametrize("maximize", [False, True])
def test_a_sample_with_an_infinite_objective_is_not_converged(maximize: bool) -> None:
    """ln z beside z ≤ −1e-2, where y ≤ 100 lets a tolerance of 1e-2 allow so much; z ≤ 1 in the other sample."""
    x, y, most = cp.Variable(2, name="x"), cp.Variable(name="y"), cp.Parameter(name="most")
    cost = -0.1 * cp.log(x[0] + x[1]) - y
    sense = cp.Maximize(-cost) if maximize else cp.Minimize(cost)
    problem = cp.Problem(sense, [x[0] + x[1] <= most, y <= 100, x >= -5, x <= 5])
    layer = oc.compile(problem, inputs=[most], tolerance=1e-2, max_steps=2000).double()
    solution = layer.solve(torch.tensor([-1e-2, 1.0], dtype=torch.float64))
    infinite = ~torch.isfinite(solution.objective)
    assert infinite.tolist() == [True, False]
    assert solution.status[0] is Status.MAX_STEPS
    assert float(solution.stats.residual[0]) <= 1e-2
    assert solution.status[1] is Status.CONVERGED
