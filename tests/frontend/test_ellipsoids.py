"""quad_form(x, P) ≤ r as a ball of the rows of a factor of P: values, multipliers and gradients of the exact solver."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.status import Status

N = 4
RNG = np.random.default_rng(0)
ROWS, POINT = RNG.normal(size=(3, N)), np.array([1.5, -2.0, 0.7, 3.0])
TIGHT = {"tol_gap_abs": 1e-9, "tol_gap_rel": 1e-9, "tol_feas": 1e-9, "ignore_dpp": True}
FORMS = {
    "full": np.diag([1.0, 4.0, 0.2, 2.0]),
    "flat": ROWS[:2].T @ ROWS[:2],
    "one row": 1e4 * ROWS[:1].T @ ROWS[:1],
    "nothing": np.zeros((N, N)),
}


def program(p: np.ndarray | cp.Parameter, r: float | cp.Parameter) -> tuple[cp.Problem, cp.Variable]:
    x = cp.Variable(N, name="x")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - POINT) + cp.norm1(x)), [0.5 * cp.quad_form(x, p) <= r]), x


@pytest.mark.parametrize("name", FORMS)
def test_values_and_multipliers(name: str) -> None:
    problem, x = program(FORMS[name], 0.8)
    layer = oc.compile(problem, outputs=[x]).double()
    assert "soc" not in repr(layer.plan)
    solution = layer.solve(tolerance=1e-10)
    problem.solve(solver="CLARABEL", **TIGHT)
    assert solution.values[0].numpy() == pytest.approx(x.value, abs=3e-5)
    (dual,), wanted = solution.duals, np.ravel(problem.constraints[0].dual_value)
    assert dual.numpy() == pytest.approx(float(wanted[0]), abs=1e-4)


def test_a_matrix_and_a_radius_of_each_sample() -> None:
    p, r = cp.Parameter((N, N), PSD=True, name="P"), cp.Parameter(nonneg=True, name="r")
    problem, x = program(p, r)
    layer = oc.compile(problem, inputs=[p, r], outputs=[x], tolerance=1e-12).double()
    rows, radii = torch.tensor(RNG.normal(size=(2, N, N))), torch.tensor([0.5, 2.0]).double()
    matrices = rows @ rows.mT + 0.1 * torch.eye(N).double()
    values = layer(matrices, radii)[0]
    for i in range(2):
        p.value, r.value = matrices[i].numpy(), float(radii[i])
        problem.solve(solver="CLARABEL", **TIGHT)
        assert values[i].numpy() == pytest.approx(x.value, abs=2e-6)
    tensors = (rows.requires_grad_(), radii.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda a, b: layer(a @ a.mT + 0.1 * torch.eye(N).double(), b)[0], tensors, eps=1e-5, atol=1e-5, fast_mode=True
    )


@pytest.mark.parametrize(("radius", "status"), [(0.0, Status.CONVERGED), (-0.1, Status.PRIMAL_INFEASIBLE)])
def test_the_center_alone_and_no_point_at_all(radius: float, status: Status) -> None:
    r = oc.Input(name="r")
    problem, x = program(FORMS["full"], r)
    layer = oc.compile(problem, outputs=[x]).double()
    with pytest.warns(oc.SolveWarning) if radius < 0 else torch.no_grad():
        solution = layer.solve(torch.tensor([radius, 1.0]).double())
    assert [solution.status[0], solution.status[1]] == [status, Status.CONVERGED]
    if status is Status.CONVERGED:
        assert float(solution.values[0][0].abs().max()) <= 1e-6
