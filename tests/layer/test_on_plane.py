"""Piecewise linear functions on a simplex, or on a box with a plane: one prox, held against exact solvers."""

from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.atoms import atom
from opteq_cvx.atoms.on_plane import OnPlane

N, B = 6, 4
Made = tuple[cp.Expression, list[cp.Constraint]]


def trading(x: cp.Variable, held: cp.Parameter, price: cp.Parameter) -> Made:
    return price * cp.norm1(x - held), [x >= 0, cp.sum(x) == 1]


def by_kind(x: cp.Variable, held: cp.Parameter, price: cp.Parameter) -> Made:
    return cp.multiply(np.arange(1.0, N + 1), price) @ cp.abs(x - held), [x >= 0, cp.sum(x) == 1]


def capped(x: cp.Variable, held: cp.Parameter, price: cp.Parameter) -> Made:
    a = np.array([1.0, 2.0, -1.0, 0.5, 0.3, 1.5])
    return price * cp.norm1(x - held), [x >= -0.2, x <= 0.5, a @ x == 0.4]


def budget(x: cp.Variable, held: cp.Parameter, price: cp.Parameter) -> Made:
    return price * cp.sum(cp.pos(x - held)), [x >= 0, x <= 0.6, cp.sum(x) <= 0.9]


def slack(x: cp.Variable, held: cp.Parameter, price: cp.Parameter) -> Made:
    return price * cp.norm1(x - held), [x >= 0, x <= 0.1, cp.sum(x) <= 100]


def split(x: cp.Variable, held: cp.Parameter, price: cp.Parameter) -> Made:
    return price * cp.sum(cp.pos(x - held)) + 2 * price * cp.sum(cp.neg(x - held)), [x >= 0, cp.sum(x) == 1]


def tolerant(x: cp.Variable, held: cp.Parameter, price: cp.Parameter) -> Made:
    return price * cp.sum(cp.pos(cp.abs(x - held) - 0.1)), [x >= 0, cp.sum(x) == 1]


CASES = [trading, by_kind, capped, budget, slack, split, tolerant]


def declared(case: Callable[[cp.Variable, cp.Parameter, cp.Parameter], Made], **options: object) -> oc.EquilibriumLayer:
    root = np.random.default_rng(0).normal(size=(N, N))
    q, held, price = oc.Input(N, name="q"), oc.Input(N, name="held"), oc.Input(nonneg=True, name="price")
    x = cp.Variable(N, name="x")
    cost, constraints = case(x, held, price)
    whole = 0.5 * cp.quad_form(x, np.eye(N) + root @ root.T / N) - q @ x + cost
    problem = cp.Problem(cp.Minimize(whole), constraints)
    outputs = [x, *constraints]
    return oc.compile(problem, inputs=[q, held, price], outputs=outputs, **options)  # type: ignore[arg-type]


def data(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    q, held = torch.randn(B, N, generator=generator, dtype=torch.float64), torch.rand(B, N, generator=generator)
    price = torch.tensor([0.02, 0.1, 0.5, 3.0], dtype=torch.float64)
    return q, (held / held.sum(1, keepdim=True)).double(), price


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_solutions_duals_and_gradients(case: Callable[..., Made], generator: torch.Generator) -> None:
    """Forward–backward takes it, and Clarabel agrees on points, duals of each constraint, and gradients."""
    layer = declared(case, tolerance=1e-9).double()
    assert layer.plan.name == "forward–backward"
    assert any(isinstance(b.f, OnPlane) for b in layer.plan.splitting.parts.blocks)  # type: ignore[attr-defined]
    q, held, price = data(generator)
    assert oc.verify(layer, q, held, price).ok
    found = layer.solve(q, held, price)
    general = declared(case, tolerance=1e-9, splitting="douglas-rachford").double().solve(q, held, price)
    for mine, other in zip(found.values, general.values, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.objective, general.objective, atol=1e-7, rtol=1e-7)
    assert bool((found.certificate.gap <= 1e-6).all())


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_float32_and_batches(case: Callable[..., Made], generator: torch.Generator) -> None:
    values = data(generator)
    exact = declared(case, tolerance=1e-9).double().solve(*values).values[0]
    single = declared(case, tolerance=1e-4)
    found = single.solve(*(t.float() for t in values))
    torch.testing.assert_close(found.values[0].double(), exact, atol=1e-3, rtol=1e-3)
    for i in range(B):
        alone = single.solve(*(t[i : i + 1].float() for t in values)).values[0]
        torch.testing.assert_close(alone[0], found.values[0][i], atol=1e-3, rtol=1e-3)


def test_an_empty_set_is_infeasible(generator: torch.Generator) -> None:
    q, x = oc.Input(N, name="q"), cp.Variable(N, name="x")
    cost = cp.sum_squares(x - q) + cp.norm1(x)
    total = oc.Input(name="total")
    problem = cp.Problem(cp.Minimize(cost), [x >= 0, x <= 0.1, cp.sum(x) == total])
    layer = oc.compile(problem, inputs=[q, total]).double()
    given = torch.randn(2, N, generator=generator, dtype=torch.float64)
    with pytest.warns(oc.SolveWarning):
        found = layer.solve(given, torch.tensor([0.3, 5.0], dtype=torch.float64))
    assert [s.name for s in found.status] == ["CONVERGED", "PRIMAL_INFEASIBLE"]


def test_no_cost_at_all_is_the_plane_alone(generator: torch.Generator) -> None:
    q, held, _ = data(generator)
    found = declared(trading, tolerance=1e-9).double().solve(q, held, torch.zeros(B, dtype=torch.float64)).values[0]
    general = declared(trading, tolerance=1e-9, splitting="douglas-rachford").double()
    wanted = general.solve(q, held, torch.zeros(B, dtype=torch.float64)).values[0]
    torch.testing.assert_close(found, wanted, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("below", [False, True])
def test_the_prox_is_nearest(below: bool, generator: torch.Generator) -> None:
    """Of random data over matrices, sums along the first axis, against CVXPY; the derivative by differences."""
    rng = np.random.default_rng(0)
    f = OnPlane(atom("abs").from_static({}), (-2,), below)
    v, held, a = (torch.tensor(rng.normal(size=(1, 3, 2))) for _ in range(3))
    own = {
        "lower": torch.full((1, 3, 2), -1.0, dtype=torch.float64),
        "upper": torch.full((1, 3, 2), 0.8, dtype=torch.float64),
        "normal": a,
        "total": torch.tensor([[[0.1, -0.2]]], dtype=torch.float64),
        "offset": held,
        "weight": torch.rand(1, 3, 2, generator=generator, dtype=torch.float64),
    }
    step = torch.tensor([[[0.7]]], dtype=torch.float64)
    x = cp.Variable((3, 2))
    sums = cp.sum(cp.multiply(a[0].numpy(), x), axis=0)
    cost = 0.7 * cp.sum(cp.multiply(own["weight"][0].numpy(), cp.abs(x + held[0].numpy())))
    side = sums <= np.array([0.1, -0.2]) if below else sums == np.array([0.1, -0.2])
    cp.Problem(cp.Minimize(cost + 0.5 * cp.sum_squares(x - v[0].numpy())), [x >= -1, x <= 0.8, side]).solve(
        solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12
    )
    np.testing.assert_allclose(f.prox(v, step, own)[0].numpy(), x.value, atol=1e-6)

    def prox(v: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return f.prox(v, step, {**own, "weight": w, "total": b})

    leaves = tuple(t.clone().requires_grad_() for t in (v, own["weight"], own["total"]))
    assert torch.autograd.gradcheck(prox, leaves)
