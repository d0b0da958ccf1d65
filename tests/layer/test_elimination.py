"""Variables that equations define are eliminated: the same solutions, duals and gradients, in fewer unknowns."""

import warnings
from collections.abc import Callable
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.adjoint import AdjointMode
from opteq_cvx.splitting.eliminated import Eliminated
from opteq_cvx.status import Status

F64 = torch.float64
HORIZON = 6
STEP, PUSH = np.array([[1.0, 0.3], [-0.1, 0.9]]), np.array([[0.05], [0.3]])
TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)


def control() -> tuple[cp.Problem, list[cp.Parameter]]:
    """A bounded force on two states, from a state and towards a goal of each sample: forces are free."""
    x, u = cp.Variable((2, HORIZON + 1), name="x"), cp.Variable((1, HORIZON), name="u")
    start, goal = cp.Parameter(2, name="start"), cp.Parameter(2, name="goal")
    cost = cp.sum_squares(x - cp.reshape(goal, (2, 1), order="F")) + 0.1 * cp.sum_squares(u) + 0.05 * cp.sum(x)
    rules = [x[:, 1:] == STEP @ x[:, :-1] + PUSH @ u, x[:, 0] == start, u <= 0.7, u >= -1]
    return cp.Problem(cp.Minimize(cost), rules), [start, goal]


def residuals() -> tuple[cp.Problem, list[cp.Parameter]]:
    """A LASSO that names its residual, with a weight of each sample and a bound."""
    a = np.random.default_rng(1).normal(size=(7, 5))
    r, x, b = cp.Variable(7, name="r"), cp.Variable(5, name="x"), cp.Parameter(7, name="b")
    lam = cp.Parameter(nonneg=True, name="lam")
    cost = 0.5 * cp.sum_squares(r) + lam * cp.norm1(x)
    return cp.Problem(cp.Minimize(cost), [r == a @ x - b, x <= 0.3]), [b, lam]


def entries() -> tuple[cp.Problem, list[cp.Parameter]]:
    """Two equations on one variable, a norm on the first half of it and bounds of each sample on two of the others."""
    rng = np.random.default_rng(2)
    a, x = rng.normal(size=(2, 8)), cp.Variable(8, name="x")
    b, top, c = cp.Parameter(2, name="b"), cp.Parameter(2, name="top"), cp.Parameter(8, name="c")
    cost = cp.sum_squares(x) + c @ x + 0.5 * cp.norm2(x[:4])
    return cp.Problem(cp.Maximize(-cost), [a @ x == b, x[4:6] <= top]), [b, top, c]


def plane() -> tuple[cp.Problem, list[cp.Parameter]]:
    """Equations alone: a linear system."""
    a, x, b = np.random.default_rng(3).normal(size=(3, 6)), cp.Variable(6, name="x"), cp.Parameter(3, name="b")
    return cp.Problem(cp.Minimize(cp.quad_form(x, np.diag(np.arange(1.0, 7.0)))), [a @ x == b]), [b]


MAKE = {f.__name__: f for f in (control, residuals, entries, plane)}
FREE = {"control": HORIZON, "residuals": 5, "entries": 6, "plane": 3}
Make = Callable[[], tuple[cp.Problem, list[cp.Parameter]]]


def data(parameters: list[cp.Parameter], count: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(4)
    found = [torch.randn(count, *p.shape, generator=g, dtype=F64) for p in parameters]
    return [0.4 * v.abs() if p.is_nonneg() else v for p, v in zip(parameters, found, strict=True)]


def layer_of(make: Make, **options: object) -> oc.EquilibriumLayer:
    problem, parameters = make()
    return oc.compile(problem, inputs=parameters, tolerance=1e-10, **options).double()


@pytest.mark.parametrize("name", MAKE)
def test_the_plan_says_what_is_eliminated(name: str) -> None:
    plan = layer_of(MAKE[name]).plan
    assert isinstance(plan.splitting, Eliminated)
    assert plan.splitting.dimension == FREE[name]
    assert "eliminated" in str(plan)
    assert "N u + M b" in plan.latex


@pytest.mark.parametrize("name", MAKE)
def test_values_objective_duals_and_certificate_match_the_exact_solver(name: str) -> None:
    problem, parameters = MAKE[name]()
    values = data(parameters, 3)
    solution = layer_of(MAKE[name]).solve(*values)
    assert solution.status.all_converged
    assert solution.certificate is not None
    assert float(solution.certificate.primal.max()) < 1e-8
    assert float(solution.certificate.dual.max()) < 1e-7
    for i in range(3):
        for p, v in zip(parameters, values, strict=True):
            p.value = v[i].numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it may stop a little short
            problem.solve(solver="CLARABEL", **TIGHT)
        assert solution.objective[i].item() == pytest.approx(problem.value, abs=1e-7)
        sign = 1 if isinstance(problem.objective, cp.Minimize) else -1
        assert sign * solution.certificate.bound[i].item() <= sign * problem.value + 1e-6
        for variable in problem.variables():
            np.testing.assert_allclose(solution.variables[variable.name()][i].numpy(), variable.value, atol=2e-5)
        for constraint, dual in zip(problem.constraints, solution.duals, strict=True):
            np.testing.assert_allclose(dual[i].numpy(), constraint.dual_value, atol=1e-4)


IMPLICIT, NUDGED = oc.Implicit(), oc.EquilibriumPropagation()
PAIRS = [*((name, IMPLICIT) for name in MAKE), ("control", NUDGED), ("residuals", NUDGED)]


@pytest.mark.parametrize(("name", "adjoint"), PAIRS, ids=[f"{n}-{type(a).__name__}" for n, a in PAIRS])
def test_gradients_are_those_of_douglas_rachford(name: str, adjoint: AdjointMode) -> None:
    grads = []
    for options in ({"adjoint": adjoint}, {"splitting": "douglas-rachford"}):
        layer = layer_of(MAKE[name], **options)
        leaves = [v.requires_grad_() for v in data(MAKE[name]()[1], 3)]
        found = layer(*leaves)
        g = torch.Generator().manual_seed(5)
        loss = sum((v * torch.randn(v.shape, generator=g, dtype=F64)).sum() for v in found)
        grads.append(torch.autograd.grad(loss, leaves))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_second_derivatives_and_those_of_duals_and_of_the_optimal_value() -> None:
    linear, layer = layer_of(plane), layer_of(residuals)
    (b,) = data(plane()[1], 1)
    assert torch.autograd.gradgradcheck(lambda t: linear(t)[0].square().sum(), b.requires_grad_())
    assert torch.autograd.gradcheck(lambda t: linear.solve(t).duals[0], b)
    b, lam = data(residuals()[1], 2)
    (slope,) = torch.autograd.grad(layer.value(b.requires_grad_(), lam).sum(), b)
    torch.testing.assert_close(slope, -layer.solve(b, lam).variables["r"].detach(), atol=1e-6, rtol=0)


def test_saved_loaded_and_in_chunks(tmp_path: Path) -> None:
    layer, values = layer_of(control), data(control()[1], 5)
    oc.save(layer, tmp_path / "layer.opteq")
    again = oc.load(tmp_path / "layer.opteq").double()
    assert isinstance(again.plan.splitting, Eliminated)
    for found in (again(*values), layer(*values, chunk=2)):
        for one, other in zip(found, layer(*values), strict=True):
            torch.testing.assert_close(one, other, atol=1e-8, rtol=0)


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
def test_an_empty_set_is_one_samples_own_matter() -> None:
    problem, parameters = control()
    low, u = cp.Parameter(name="low"), problem.variables()[1]
    layer = oc.compile(cp.Problem(problem.objective, [*problem.constraints, u >= low]), [*parameters, low]).double()
    assert isinstance(layer.plan.splitting, Eliminated)
    solution = layer.solve(*data(parameters, 2), torch.tensor([0.0, 2.0], dtype=F64))
    assert list(solution.status) == [Status.CONVERGED, Status.PRIMAL_INFEASIBLE]


def held() -> cp.Problem:
    """Bounds on the states, too: no coordinates are left for the equations."""
    problem, _ = control()
    return cp.Problem(problem.objective, [*problem.constraints, problem.variables()[0] <= 5])


def doubled() -> cp.Problem:
    """An equation twice."""
    x, b = cp.Variable(4, name="x"), cp.Parameter(name="b")
    return cp.Problem(cp.Minimize(cp.sum_squares(x)), [cp.sum(x[:3]) == b, 2 * cp.sum(x[:3]) == 2 * b])


def singular() -> cp.Problem:
    """No curvature along the plane."""
    x, y, b = cp.Variable(3, name="x"), cp.Variable(3, name="y"), cp.Parameter(3, name="b")
    return cp.Problem(cp.Minimize(cp.sum_squares(y)), [y == np.ones((3, 3)) @ x - b, x >= -1, x <= 1])


def unstable() -> cp.Problem:
    """States that grow a thousandfold within the horizon."""
    x, u, b = cp.Variable(12, name="x"), cp.Variable(11, name="u"), cp.Parameter(name="b")
    rules = [x[1:] == 2.5 * x[:-1] + u, x[0] == b, cp.abs(u) <= 1]
    return cp.Problem(cp.Minimize(cp.sum_squares(x) + cp.sum_squares(u)), rules)


def learned() -> cp.Problem:
    """Equations with a weight."""
    x, y, b = cp.Variable(3, name="x"), cp.Variable(3, name="y"), oc.Input(3, name="b")
    a = oc.Weight((3, 3), name="A", init=np.eye(3))
    return cp.Problem(cp.Minimize(cp.sum_squares(y) + cp.sum_squares(x)), [y == a @ x - b, x >= -1])


@pytest.mark.parametrize("make", [held, doubled, singular, unstable, learned], ids=lambda f: f.__name__)
def test_where_it_does_not_fit_douglas_rachford_stays(make: Callable[[], cp.Problem]) -> None:
    problem = make()
    inputs = [p for p in problem.parameters() if not isinstance(p, oc.Weight)]
    assert oc.explain(problem, inputs=inputs).plan.name == "Douglas–Rachford"


def test_asked_for_by_name_and_refused_with_a_reason() -> None:
    assert isinstance(layer_of(control, splitting="forward-backward").plan.splitting, Eliminated)
    assert layer_of(control, splitting="douglas-rachford").plan.name == "Douglas–Rachford"
    problem = doubled()
    with pytest.raises(oc.CompileError, match="does not fit"):
        oc.compile(problem, inputs=problem.parameters(), splitting="forward-backward")
