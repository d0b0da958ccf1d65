"""A heavy norm of rows near 0 beside large rows: an error of 5e-9 of the large ones is 1e-4 of the objective."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.splitting.groups import Rows
from opteq_cvx.splitting.sizes import optimality

SPLITTINGS = {"Douglas–Rachford": oc.DouglasRachford(), "PDHG": oc.PDHG()}


@pytest.mark.parametrize("name", SPLITTINGS)
@pytest.mark.parametrize("heavy", ["norm2", "abs"])
def test_a_heavy_norm(heavy: str, name: str) -> None:
    rng = np.random.default_rng(0)
    x, rows = cp.Variable(6, name="x"), 300.0 * rng.normal(size=(5, 6))
    bound = rows @ rng.normal(size=6) + rng.uniform(0.0, 3.0, size=5)
    norm = {"norm2": cp.norm, "abs": cp.norm1}[heavy]
    pull = rng.normal(size=6)
    objective = 2e3 * norm(x[:3]) + cp.norm1(x[3:] - pull[3:]) + pull[:3] @ x[:3]
    problem = cp.Problem(cp.Minimize(objective), [rows @ x <= bound])
    solution = oc.compile(problem, outputs=[x], splitting=SPLITTINGS[name]).double().solve(tolerance=1e-8)
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    best = float(problem.value)
    x.value = solution.values[0].numpy()
    assert solution.status.all_converged
    assert float(problem.objective.value) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize(("groups", "expected"), [((), 5e-7), (((0, 1),), 5e-9), (((0,), (1,)), 5e-7)])
def test_an_error_is_relative_to_its_row_or_to_its_cone(groups: tuple[tuple[int, ...], ...], expected: float) -> None:
    x, w = torch.tensor([[120.0, 0.0]]).double(), torch.tensor([[120.0, 6e-7]]).double()
    nothing, rows = torch.zeros_like(x), [Rows(np.array(group), (-1,)) for group in groups]
    primal, *_ = optimality(x, w, nothing, nothing, nothing, x, nothing, nothing, rows)
    assert float(primal) == pytest.approx(expected, rel=1e-6)
