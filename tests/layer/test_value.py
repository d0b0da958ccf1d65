"""layer.value: the optimal value and its derivatives, no adjoint solve; against Clarabel and its differences."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.adjoint import linear_solve
from opteq_cvx.errors import OrderError, SolveWarning
from opteq_cvx.verify.differences import difference
from opteq_cvx.verify.exact import solve_exact
from tests.layer.cases import CASES, Case

BY_NAME = {c.name: c for c in CASES}


def _kink() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """b moves the kinks of the objective, and the solution sits on some of them."""
    b, x = cp.Parameter(4, name="b"), cp.Variable(4, name="x")
    return cp.Problem(cp.Maximize(-2 * cp.norm1(x - b) - cp.sum_squares(x) - 3)), [b], [x]


def _curved() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    a, r = cp.Parameter((5, 3), name="A"), cp.Parameter(nonneg=True, name="r")
    x = cp.Variable(3, name="x")
    return cp.Problem(cp.Minimize(cp.log_sum_exp(a @ x) + cp.sum(x)), [cp.norm(x - 1) <= r]), [a, r], [x]


MORE = (
    Case("kink", "", _kink, lambda r: [r.normal(size=4) * 2]),
    Case("curved", "", _curved, lambda r: [r.normal(size=(5, 3)), np.array(r.uniform(0.5, 1.5))]),
)


def drawn(case: Case, count: int) -> tuple[oc.EquilibriumLayer, list[Tensor]]:
    return prepared(case.make(), case, count)


def prepared(
    made: tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]], case: Case, count: int
) -> tuple[oc.EquilibriumLayer, list[Tensor]]:
    problem, inputs, outputs = made
    layer = oc.compile(problem, inputs=inputs, outputs=outputs, tolerance=1e-11).double()
    rng = np.random.default_rng(3)
    columns = zip(*[case.draw(rng) for _ in range(count)], strict=True)
    return layer, [torch.tensor(np.stack(c)).requires_grad_() for c in columns]


@pytest.mark.parametrize("case", [*CASES, *MORE], ids=lambda c: c.name)
def test_value_and_gradient_are_those_of_the_exact_solver(case: Case) -> None:
    problem, inputs, outputs = made = case.make()
    layer, tensors = prepared(made, case, 1)
    layer.write_back()
    value = layer.value(*tensors)
    grads = torch.autograd.grad(value.sum(), tensors)
    points = {p: t.detach()[0].numpy() for p, t in zip(inputs, tensors, strict=True)}
    assert value.item() == pytest.approx(solve_exact(problem, outputs, points).objective, rel=1e-8, abs=1e-8)
    rng = np.random.default_rng(7)
    for parameter, grad in zip(inputs, grads, strict=True):
        lean = rng.normal(size=parameter.shape)

        def phi(t: float, parameter: cp.Parameter = parameter, lean: np.ndarray = lean) -> float:
            moved = np.asarray(points[parameter] + t * lean)
            return solve_exact(problem, outputs, {**points, parameter: moved}).objective

        want = difference(phi)
        assert want.usable
        assert float((grad[0] * torch.tensor(lean)).sum()) == pytest.approx(want.value, rel=1e-6, abs=1e-7)


def test_its_gradient_makes_no_adjoint_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an adjoint solve")

    monkeypatch.setattr(linear_solve, "solve", refuse)
    layer, tensors = drawn(BY_NAME["opteq"], 3)
    grads = torch.autograd.grad(layer.value(*tensors).sum(), [*tensors, *layer.parameters()])
    assert all(torch.isfinite(g).all() for g in grads)
    with pytest.raises(AssertionError, match="an adjoint solve"):
        layer(*tensors)[0].sum().backward()


@pytest.mark.parametrize("case", [BY_NAME["box_qp"], BY_NAME["inequalities"], *MORE], ids=lambda c: c.name)
def test_second_derivatives_are_right(case: Case) -> None:
    layer, tensors = drawn(case, 1)
    assert torch.autograd.gradcheck(layer.value, tensors, eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)
    assert torch.autograd.gradgradcheck(layer.value, tensors, eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_a_first_order_adjoint_raises_on_the_second_derivative() -> None:
    problem, inputs, outputs = BY_NAME["lasso"].make()
    layer = oc.compile(problem, inputs=inputs, outputs=outputs, adjoint=oc.EquilibriumPropagation()).double()
    _, (y, lam) = drawn(BY_NAME["lasso"], 2)
    (first,) = torch.autograd.grad(layer.value(y, lam).sum(), y, create_graph=True)
    with pytest.raises(OrderError):
        torch.autograd.grad(first.sum(), y)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_transforms_agree() -> None:
    layer, (mu,) = drawn(BY_NAME["portfolio"], 3)
    points = mu.detach()
    want = torch.autograd.grad(layer.value(mu).sum(), mu)[0]
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(lambda m: layer.value(m)))(points), want)
    torch.testing.assert_close(torch.func.jacfwd(lambda m: layer.value(m))(points[0]), want[0])


def test_infeasible_samples_are_infinite_without_a_gradient() -> None:
    layer, (b_half, q, low, high) = drawn(BY_NAME["box_qp"], 3)
    low = low.detach().clone()
    low[1] = 10.0
    with pytest.warns(SolveWarning, match="1 primal_infeasible"):
        value = layer.value(b_half, q, low, high)
    assert value[1] == torch.inf
    grads = torch.autograd.grad(value[[0, 2]].sum(), [b_half, q, high])
    assert all(torch.isfinite(g).all() for g in grads)
    assert all((g[1] == 0).all() for g in grads)
