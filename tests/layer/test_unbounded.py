"""Whether values fall for ever, end at a bound, or have a minimum far away, whatever the weight: a table of them."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.splitting.asked import SplittingChoice
from opteq_cvx.status import Status

WEIGHTS = (1e-3, 1.0, 1e3)
SPLITTINGS: dict[str, SplittingChoice | None] = {
    "planned": None,
    "Douglas–Rachford": oc.DouglasRachford(),
    "Davis–Yin": oc.DavisYin(),
    "PDHG": oc.PDHG(),
}
ENDLESS = 1e6  # points so large are on the way to infinity: Clarabel calls them optimal

w = cp.Parameter(nonneg=True, name="w")
x, y = cp.Variable(2, name="x"), cp.Variable(2, name="y")
flat = cp.norm1(y - 1)  # has its minimum, in coordinates of its own
curved = cp.sum_squares(y - 1)
coupled = cp.log_sum_exp(cp.hstack([1.5 - 1.2 * y[0], 0.3 * y[1]]))
Program = tuple[cp.Expression, list[cp.Constraint]]

UNBOUNDED: dict[str, Program] = {
    "−w ln x": (-w * cp.sum(cp.log(x)), []),
    "−w ln x + ‖y − 1‖₁": (-w * cp.sum(cp.log(x)) + flat, []),
    "−w ln x + ‖y − 1‖²": (-w * cp.sum(cp.log(x)) + curved, []),
    "−w ln x + ln Σ exp y": (-w * cp.sum(cp.log(x)) + coupled, [y >= -1, y <= 2]),
    "−w ln x + |x₀ − x₁|": (-w * cp.sum(cp.log(x)) + cp.abs(x[0] - x[1]) + flat, []),
    "−w ln x + exp −y": (-w * cp.sum(cp.log(x)) + cp.sum(cp.exp(-y)), []),
    "−w ln(x₀ + x₁)": (-w * cp.log(x[0] + x[1] + 3) + flat, [x >= -1]),
    "−w ln x₀ beside a linear program": (-w * cp.log(x[0]) + cp.sum(y), [y >= 0, cp.sum(y) >= 1, x[1] == y[0]]),
    "−w ln det": (-w * cp.log_det(cp.diag(x)) + flat, []),
    "−w √x": (-w * cp.sum(cp.sqrt(x)) + flat, []),
    "−w x^0.1": (-w * cp.sum(cp.power(x, 0.1)) + flat, []),
    "−w √(x₀x₁)": (-w * cp.geo_mean(x) + flat, []),
    "−w x": (-w * cp.sum(x) + flat, [x >= 0]),
}
NOT_ATTAINED: dict[str, Program] = {
    "w exp −x": (w * cp.sum(cp.exp(-x)) + flat, []),
    "w exp −x + ‖y − 1‖²": (w * cp.sum(cp.exp(-x)) + curved, []),
    "w exp(−x₀ − x₁)": (w * cp.exp(-x[0] - x[1]) + flat, [x[0] == x[1]]),
    "w ln(1 + exp −x)": (w * cp.sum(cp.logistic(-x)) + flat, []),
    "w/x": (w * cp.sum(cp.inv_pos(x)) + flat, []),
    "w x^−0.1": (w * cp.sum(cp.power(x, -0.1)) + flat, []),
}
FAR: dict[str, Program] = {
    "−w ln x + 0.1 x": (-w * cp.sum(cp.log(x)) + 0.1 * cp.sum(x) + flat, []),
    "−w ln x + 1e−3 x": (-w * cp.sum(cp.log(x)) + 1e-3 * cp.sum(x) + flat, []),
    "−w ln x + 1e−6 x": (-w * cp.sum(cp.log(x)) + 1e-6 * cp.sum(x) + flat, []),
    "−w ln x, x ≤ 1e6": (-w * cp.sum(cp.log(x)) + flat, [x <= 1e6]),
    "−w ln x + 1e−8 x²": (-w * cp.sum(cp.log(x)) + 1e-8 * cp.sum_squares(x) + flat, []),
    "−w ln x₀, x₁ ≥ 1e−3 x₀": (-w * cp.log(x[0]) + flat + cp.abs(x[1]), [x[1] >= 1e-3 * x[0]]),
    "−w √x + 1e−3 x": (-w * cp.sum(cp.sqrt(x)) + 1e-3 * cp.sum(x) + flat, []),
    "w/x + 1e−6 x": (w * cp.sum(cp.inv_pos(x)) + 1e-6 * cp.sum(x) + flat, []),
    "w x ln x − 3wx": (-w * cp.sum(cp.entr(x)) - 3 * w * cp.sum(x) + flat, []),
}


def solved(program: Program, splitting: str) -> oc.Solution:
    """A batch of all weights."""
    problem = cp.Problem(cp.Minimize(program[0]), program[1])
    layer = oc.compile(problem, inputs=[w], splitting=SPLITTINGS[splitting], tolerance=1e-8, max_steps=2000)
    return layer.double().solve(torch.tensor(WEIGHTS, dtype=torch.float64))


def exact(program: Program, weight: float) -> tuple[str, float, float]:
    """Clarabel's status, its value and the size of its x, NaN where it has none."""
    w.value = weight
    problem = cp.Problem(cp.Minimize(program[0]), program[1])
    problem.solve(solver="CLARABEL", ignore_dpp=True)
    found = x.value is not None and problem.status == "optimal"
    return problem.status, float(problem.value), float(np.abs(x.value).max()) if found else np.nan


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
@pytest.mark.parametrize("name", UNBOUNDED)
def test_what_falls_for_ever_is_unbounded(name: str) -> None:
    solution = solved(UNBOUNDED[name], "planned")
    assert [s.name for s in solution.status] == ["DUAL_INFEASIBLE"] * len(WEIGHTS)
    assert bool((solution.objective == -torch.inf).all())


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
@pytest.mark.parametrize("splitting", list(SPLITTINGS)[1:])
@pytest.mark.parametrize("name", ["−w ln x + ‖y − 1‖₁", "−w x^0.1", "−w √(x₀x₁)"])
def test_by_every_splitting_that_looks_for_rays(name: str, splitting: str) -> None:
    assert {s.name for s in solved(UNBOUNDED[name], splitting).status} == {"DUAL_INFEASIBLE"}


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
@pytest.mark.parametrize("name", NOT_ATTAINED)
def test_what_ends_at_a_bound_is_not(name: str) -> None:
    """The infimum is 0."""
    solution = solved(NOT_ATTAINED[name], "planned")
    assert set(solution.status) <= {Status.CONVERGED, Status.MAX_STEPS}
    assert float(solution.objective.min()) >= 0.0


@pytest.mark.parametrize("name", FAR)
def test_a_minimum_far_away_is_found(name: str) -> None:
    solution = solved(FAR[name], "planned")
    assert [s.name for s in solution.status] == ["CONVERGED"] * len(WEIGHTS)
    for i, weight in enumerate(WEIGHTS[:2]):  # Clarabel's points of size 1e8 are rough
        status, value, _ = exact(FAR[name], weight)
        assert status == "optimal"
        assert solution.objective[i].item() == pytest.approx(value, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["−w ln x + ‖y − 1‖₁", "−w ln x₀ beside a linear program", "−w √(x₀x₁)", "−w x"])
def test_the_exact_solver_finds_no_minimum_either(name: str) -> None:
    """It stops at a point of size 1e13 where its cone has no ray that proves it."""
    status, _, size = exact(UNBOUNDED[name], 1.0)
    assert status == "unbounded" or size > ENDLESS
