"""Davis–Yin: values, duals, gradients and statuses against Clarabel and Douglas–Rachford; what the plan says of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.splitting.davis_yin import DavisYin
from opteq_cvx.splitting.two_groups import TwoGroups
from opteq_cvx.status import Status

Made = tuple[cp.Problem, cp.Parameter, cp.Variable]


@dataclass(frozen=True)
class Case:
    """A program with one input and one variable, whose proxes overlap.

    `slack`: of values and duals, more where the objective is flat and Clarabel at 1e-9 is not nearer itself.
    """

    name: str
    make: Callable[[], Made]
    slack: float = 1e-5


def simplex_and_rank() -> Made:
    """Rows on the simplex, low rank."""
    y, x = oc.Input((4, 3), name="y"), cp.Variable((4, 3), name="X")
    cost = 0.5 * cp.sum_squares(x - y) + 0.3 * cp.normNuc(x)
    return cp.Problem(cp.Minimize(cost), [x >= 0, cp.sum(x, axis=1) == 1]), y, x


def rows_and_columns() -> Made:
    """Group norms both ways, on a quadratic that couples and is singular."""
    a = np.random.default_rng(0).normal(size=(3, 4))
    y, x = oc.Input((3, 5), name="y"), cp.Variable((4, 5), name="X")
    groups = 0.2 * cp.sum(cp.norm(x, 2, axis=1)) + 0.1 * cp.sum(cp.norm(x, 2, axis=0))
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(a @ x - y) + groups)), y, x


def no_quadratic() -> Made:
    """A linear cost: L = 0."""
    y, x = oc.Input(5, name="y"), cp.Variable(5, name="x")
    return cp.Problem(cp.Minimize(y @ x + cp.norm(x)), [x >= 0, cp.sum(x) == 1]), y, x


def box_in_a_ball() -> Made:
    """An entrywise function merged with its box, and a ball across; some coordinates bare."""
    y, x = oc.Input(6, name="y"), cp.Variable(6, name="x")
    cost = 0.5 * cp.sum_squares(x - y) + 0.2 * cp.norm1(x[:4])
    return cp.Problem(cp.Minimize(cost), [x[:4] <= 0.4, cp.norm(x[1:5]) <= 0.6]), y, x


def chain() -> Made:
    """Four functions in a chain of overlaps, which the order of the terms alone would not put in two groups."""
    y, x = oc.Input(8, name="y"), cp.Variable(8, name="x")
    cost = 0.5 * cp.sum_squares(x - y) + 0.3 * cp.norm(x[:3]) + 0.2 * cp.norm(x[5:])
    return cp.Problem(cp.Minimize(cost + 0.2 * cp.norm_inf(x[2:5])), [cp.norm1(x[4:6]) <= 0.5]), y, x


CASES = (
    Case("simplex and rank", simplex_and_rank),
    Case("rows and columns", rows_and_columns, slack=1e-4),
    Case("no quadratic", no_quadratic, slack=1e-4),
    Case("box in a ball", box_in_a_ball),
    Case("chain", chain),
)


def layer_of(case: Case, tolerance: float, **options: object) -> tuple[oc.EquilibriumLayer, Made]:
    made = case.make()
    layer = oc.compile(made[0], splitting="davis-yin", tolerance=tolerance, **options).double()
    assert isinstance(layer.plan.splitting, DavisYin)
    return layer, made


def drawn(y: cp.Parameter, count: int) -> torch.Tensor:
    return torch.randn(count, *y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def solved_exactly(made: Made, value: torch.Tensor) -> None:
    problem, y, _ = made
    y.value = value.numpy()
    accuracy = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-9)
    problem.solve(solver="CLARABEL", **accuracy)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_values_objective_and_duals_match_the_exact_solver(case: Case) -> None:
    layer, made = layer_of(case, 1e-9)
    problem, y, x = made
    data = drawn(y, 3)
    solution = layer.solve(data)
    assert solution.status.all_converged
    certificate = solution.certificate
    assert float(torch.stack([certificate.primal, certificate.dual]).max()) <= 1e-7
    for i in range(3):
        solved_exactly(made, data[i])
        assert solution.objective[i].item() == pytest.approx(problem.value, abs=1e-7, rel=1e-7)
        np.testing.assert_allclose(solution.values[0][i].detach().numpy(), x.value, atol=case.slack)
        for constraint, dual in zip(problem.constraints, solution.duals, strict=True):
            np.testing.assert_allclose(dual[i].detach().numpy(), constraint.dual_value, atol=case.slack)
        torch.testing.assert_close(layer(data[i])[0], solution.values[0][i], atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_gradients_are_those_of_douglas_rachford(case: Case) -> None:
    """Another map, another adjoint system: only the program is the same."""
    found = []
    for splitting in ("davis-yin", "douglas-rachford"):
        layer = oc.compile(case.make()[0], splitting=splitting, tolerance=1e-11).double()
        data = drawn(case.make()[1], 2).requires_grad_()
        value = layer(data)[0]
        seed = torch.randn(value.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        found.append(torch.autograd.grad(value, data, seed)[0])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_without_newton_steps_too(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large programs have none: the map alone reaches the solution, in a bounded number of steps."""
    monkeypatch.setattr(DavisYin, "polish", lambda *_: None)
    layer, made = layer_of(case, 1e-7)
    solution = layer.solve(drawn(made[1], 3))
    assert solution.status.all_converged
    assert int(solution.stats.steps.max()) <= 500


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
def test_infeasible_and_unbounded_samples_beside_solvable_ones() -> None:
    total, c = oc.Input(name="total"), oc.Input(3, name="c")
    x = cp.Variable(3, name="x")
    problem = cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == total, x >= 0, cp.norm(x[:2]) <= 2])
    layer = oc.compile(problem, inputs=[total, c], splitting="davis-yin", tolerance=1e-7).double()
    totals = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    costs = torch.tensor([[3.0, 2.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 2.0]], dtype=torch.float64)
    solution = layer.solve(totals, costs)
    assert list(solution.status) == [Status.CONVERGED, Status.PRIMAL_INFEASIBLE, Status.CONVERGED]
    torch.testing.assert_close(solution.values[0][0], totals.new_tensor([0.0, 0.0, 1.0]), atol=1e-6, rtol=0)
    free = cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.norm(x[:2]) <= 1])
    layer = oc.compile(free, inputs=[c], splitting="davis-yin", tolerance=1e-7).double()
    solution = layer.solve(torch.tensor([[1.0, 1.0, -1.0], [-3.0, -4.0, 1.0]], dtype=torch.float64))
    assert list(solution.status) == [Status.DUAL_INFEASIBLE, Status.CONVERGED]
    torch.testing.assert_close(solution.values[0][1], totals.new_tensor([0.6, 0.8, 0.0]), atol=1e-6, rtol=0)


def test_the_plan_takes_it_where_a_factor_is_too_large_and_two_groups_exist() -> None:
    n = 60
    y, x = oc.Input((n, n), name="y"), cp.Variable((n, n), name="X")
    groups = cp.sum(cp.norm(x, 2, axis=1)) + cp.sum(cp.norm(x, 2, axis=0))
    plan = oc.explain(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - y) + groups))).plan
    assert plan.name == "Davis–Yin"
    assert "dense factor of 3600 unknowns" in str(plan)
    assert r"\mathrm{prox}_{\gamma f_2}(z)" in plan.latex
    small = cp.Variable((4, 4), name="X")
    groups = cp.sum(cp.norm(small, 2, axis=1)) + cp.sum(cp.norm(small, 2, axis=0))
    assert oc.explain(cp.Problem(cp.Minimize(cp.sum_squares(small - 1) + groups))).plan.name == "Douglas–Rachford"


def test_a_large_program_against_the_exact_solver() -> None:
    n = 40
    y, x = oc.Input((n, n), name="y"), cp.Variable((n, n), name="X")
    groups = 0.5 * cp.sum(cp.norm(x, 2, axis=1)) + 0.5 * cp.sum(cp.norm(x, 2, axis=0))
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - y) + groups))
    layer = oc.compile(problem, tolerance=1e-8).double()
    assert layer.plan.name == "Davis–Yin"
    data = drawn(y, 2)
    solution = layer.solve(data)
    assert solution.status.all_converged
    solved_exactly((problem, y, x), data[0])
    assert solution.objective[0].item() == pytest.approx(problem.value, rel=1e-7)


def test_programs_of_more_than_two_groups_are_refused_in_their_own_words() -> None:
    x, y = cp.Variable(5, name="x"), oc.Input(5, name="y")
    cost = cp.sum_squares(x - y)
    three = cp.Problem(cp.Minimize(cost + cp.norm(x) + cp.norm_inf(x)), [x >= 0])
    with pytest.raises(oc.CompileError, match=r"davis-yin.*more than two groups"):
        oc.compile(three, splitting="davis-yin")
    with pytest.raises(oc.CompileError, match=r"cumsum\(x, axis=0\) <= 1"):
        oc.compile(cp.Problem(cp.Minimize(cost), [cp.cumsum(x) <= 1]), splitting="davis-yin")


def test_an_indefinite_quadratic_is_flagged() -> None:
    p, x = oc.Input((3, 3), name="P", symmetric=True), cp.Variable(3, name="x")
    cost = cp.quad_form(x, cp.psd_wrap(p)) + cp.norm(x)
    layer = oc.compile(cp.Problem(cp.Minimize(cost), [x >= 0]), splitting="davis-yin").double()
    eye = torch.eye(3, dtype=torch.float64)
    with pytest.warns(oc.SolveWarning):
        solution = layer.solve(torch.stack([eye, eye - 2 * torch.diag(torch.tensor([1.0, 0, 0]))]))
    assert list(solution.status) == [Status.CONVERGED, Status.NOT_CONVEX]


def test_a_saved_layer_keeps_its_splitting(tmp_path: Path) -> None:
    layer, (_, y, _) = layer_of(CASES[0], 1e-6)
    oc.save(layer, tmp_path / "layer.opteq")
    again = oc.load(tmp_path / "layer.opteq")
    assert again.plan.name == "Davis–Yin"
    data = drawn(y, 1)[0]
    torch.testing.assert_close(again(data)[0], layer(data)[0])


def test_terms_are_coloured_not_sorted() -> None:
    """In the chain the first two functions are disjoint, yet belong to different groups."""
    form = TwoGroups.of(layer_of(CASES[-1], 1e-6)[0].plan.program)
    assert isinstance(form, TwoGroups)
    assert {len(form.first), len(form.second)} == {2}
    for group in (form.first, form.second):
        taken = np.concatenate([b.index.reshape(-1) for b in group])
        assert np.unique(taken).size == taken.size
