"""Infeasible, unbounded and bad samples inside a batch: the right status for each, the right answer for the others."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.splitting.infeasibility import certainty, certify
from opteq_cvx.status import Status

NAMES = {"optimal": Status.CONVERGED, "infeasible": Status.PRIMAL_INFEASIBLE, "unbounded": Status.DUAL_INFEASIBLE}


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
def test_a_mixed_batch_of_linear_programs_agrees_with_clarabel() -> None:
    g, h, c = cp.Parameter((4, 3), name="G"), cp.Parameter(4, name="h"), cp.Parameter(3, name="c")
    x = cp.Variable(3, name="x")
    problem = cp.Problem(cp.Minimize(c @ x + cp.norm1(x[:1])), [g @ x <= h, x <= 5])
    layer = oc.compile(problem, inputs=[g, h, c], tolerance=1e-8).double()
    rng = np.random.default_rng(0)
    count = 24
    gs, hs = rng.normal(size=(count, 4, 3)), rng.uniform(0.5, 1.0, size=(count, 4))
    cs = -np.einsum("bij,bi->bj", gs, rng.uniform(0.1, 1.0, size=(count, 4)))  # dual feasible by construction
    for i in range(0, count, 4):  # x0 ≤ −1 and −x0 ≤ −1 cannot both hold
        gs[i, :2], hs[i, :2] = [[1, 0, 0], [-1, 0, 0]], -1
    for i in range(1, count, 4):  # every direction −1 is feasible and descends
        gs[i], cs[i] = np.abs(gs[i]), 2.0
    cs[2, 0] = np.nan
    solution = layer.solve(torch.tensor(gs), torch.tensor(hs), torch.tensor(cs))
    seen = set()
    for i in range(count):
        if i == 2:
            assert solution.status[i] is Status.NON_FINITE_INPUT
            continue
        g.value, h.value, c.value = gs[i], hs[i], cs[i]
        problem.solve(solver="CLARABEL", ignore_dpp=True)
        assert solution.status[i] is NAMES[problem.status], i
        seen.add(problem.status)
        assert solution.objective[i].item() == pytest.approx(problem.value, rel=1e-6, abs=1e-6)
    assert seen == set(NAMES)


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
def test_a_ball_that_misses_a_plane() -> None:
    y, b = cp.Variable(4, name="y"), oc.Input(2, name="b")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(y)), [cp.norm(y, 2) <= 1, y[:2] == b])
    points = torch.tensor([[0.1, 0.2], [2.0, 0.0], [0.9, 0.1], [0.9, 0.9]], dtype=torch.float64)
    solution = oc.compile(problem).double().solve(points)
    inside = [bool(p.norm() <= 1) for p in points]
    assert [s is Status.CONVERGED for s in solution.status] == inside
    assert all(s is Status.PRIMAL_INFEASIBLE for s, ok in zip(solution.status, inside, strict=True) if not ok)
    assert torch.isinf(solution.objective[~torch.tensor(inside)]).all()


def test_feasible_programs_are_never_called_infeasible() -> None:
    """Badly scaled but feasible: the certificate must not fire on slow progress."""
    rng = np.random.default_rng(2)
    a, b = cp.Parameter((3, 6), name="A"), cp.Parameter(3, name="b")
    x = cp.Variable(6, nonneg=True, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum(x)), [a @ x == b])
    layer = oc.compile(problem, inputs=[a, b], tolerance=1e-6, max_steps=20_000).double()
    data = rng.normal(size=(30, 3, 6)) * np.geomspace(1e-2, 1e2, 6)
    right = np.einsum("bij,bj->bi", data, rng.uniform(0.0, 1.0, size=(30, 6)))
    solution = layer.solve(torch.tensor(data), torch.tensor(right))
    assert solution.status.counts().get(Status.PRIMAL_INFEASIBLE, 0) == 0
    assert solution.status.counts().get(Status.DUAL_INFEASIBLE, 0) == 0
    assert solution.status.all_converged


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
def test_a_loose_tolerance_does_not_call_a_flat_program_unbounded(tolerance: float) -> None:
    """½·10⁻⁵x² − x has its minimum at 10⁵; without the curvature the same ray is a certificate."""
    found = []
    for curvature in (1e-5, 0.0):
        theta = [torch.tensor(m, dtype=torch.float64)[None] for m in ([[curvature]], [-1.0], [[1.0]], [0.0])]
        ray, still = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
        accuracy = certainty(tolerance, torch.float64)
        found.append(bool(certify([], theta, still, still, ray, still, accuracy).unbounded))
    assert found == [False, True]


FALLS = {"log": True, "sqrt": True, "linear": True, "exp": False, "logistic": False, "inverse": False}


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
@pytest.mark.parametrize("name", list(FALLS))
@pytest.mark.parametrize("splitting", [oc.DavisYin(), oc.DouglasRachford(), oc.ForwardBackward()], ids=repr)
def test_a_bound_that_is_never_attained_is_no_unboundedness(name: str, splitting: object) -> None:
    """−ln x and −√x fall for ever, though ever less; eˣ, ln(1 + eˣ) and 1/x end at 0."""
    x = cp.Variable(3, name="x")
    f = {
        "log": -cp.log(x),
        "sqrt": -cp.sqrt(x),
        "linear": -x,
        "exp": cp.exp(-x),
        "logistic": cp.logistic(-x),
        "inverse": cp.inv_pos(x),
    }[name]
    shift = oc.Input(3, name="shift")
    problem = cp.Problem(cp.Minimize(cp.sum(f) + 0 * cp.sum(shift)), [x >= -1])
    layer = oc.compile(problem, splitting=splitting, tolerance=1e-8, max_steps=400).double()  # type: ignore[arg-type]
    status = layer.solve(torch.zeros(3, dtype=torch.float64)).status[()]
    expected = (Status.DUAL_INFEASIBLE,) if FALLS[name] else (Status.CONVERGED, Status.MAX_STEPS)
    assert status in expected, status
