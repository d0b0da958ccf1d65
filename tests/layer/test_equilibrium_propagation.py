"""Equilibrium propagation through layers: certificate, orders in β, halving, order of differentiation, refusals."""

from collections.abc import Callable
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.adjoint.problem import FixedPoint, by_iteration
from opteq_cvx.errors import GradientWarning, InputError, OrderError, SolveWarning, UnsupportedError
from opteq_cvx.iterate.contract import Stop
from opteq_cvx.iterate.plain import Plain
from tests.adjoint.setting import parameters
from tests.adjoint.toys import Unit
from tests.benchmarks import adjoints
from tests.layer.cases import CASES, Case

BY_NAME = {c.name: c for c in CASES}
N = 5


def drawn(case: Case, count: int, adjoint: oc.Implicit | oc.EquilibriumPropagation) -> tuple[oc.EquilibriumLayer, list]:
    problem, inputs, outputs = case.make()
    layer = oc.compile(problem, inputs=inputs, outputs=outputs, tolerance=1e-11, adjoint=adjoint).double()
    rng = np.random.default_rng(3)
    columns = zip(*[case.draw(rng) for _ in range(count)], strict=True)
    return layer, [torch.tensor(np.stack(c)).requires_grad_() for c in columns]


def gradients(layer: oc.EquilibriumLayer, inputs: list[Tensor]) -> tuple[tuple[Tensor, ...], oc.Solution]:
    solution = layer.solve(*inputs)
    g = torch.Generator().manual_seed(0)
    loss = sum((torch.randn(v.shape, generator=g, dtype=v.dtype) * v).sum() for v in solution.values)
    return torch.autograd.grad(loss, [*inputs, *layer.parameters()]), solution


def smooth_layer(adjoint: oc.Implicit | oc.EquilibriumPropagation) -> oc.EquilibriumLayer:
    """The prox of the norm: smooth away from zero, and nothing of it piecewise affine."""
    x, u = oc.Input(N, name="x"), cp.Variable(N, name="u")
    problem = cp.Problem(cp.Minimize(cp.norm(u, 2) + 0.5 * cp.sum_squares(u - x)))
    return oc.compile(problem, adjoint=adjoint, tolerance=1e-12, gradient_tolerance=float("inf")).double()


def smooth_error(options: dict[str, object]) -> float:
    g = torch.Generator().manual_seed(0)
    x, v = (torch.randn(3, N, generator=g, dtype=torch.float64) for _ in range(2))
    found = []
    for adjoint in (oc.Implicit(), oc.EquilibriumPropagation(**options)):
        point = (2 * x).requires_grad_()
        (u,) = smooth_layer(adjoint)(point)
        found.append(torch.autograd.grad(u, point, v)[0])
    return float((found[1] - found[0]).norm() / found[0].norm())


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_certified_gradients_are_those_of_implicit_differentiation(case: Case) -> None:
    want, _ = gradients(*drawn(case, 4, oc.Implicit()))
    got, solution = gradients(*drawn(case, 4, oc.EquilibriumPropagation()))
    assert solution.stats.certified is not None
    assert solution.stats.certified.all()
    assert solution.stats.gradient_error is not None
    assert (solution.stats.gradient_error < 1e-6).all()
    for a, b in zip(got, want, strict=True):
        assert (a - b).norm() <= 1e-8 * b.norm() + 1e-10


@pytest.mark.parametrize(
    ("setup", "beta"), [(adjoints.unit, 3.0), (adjoints.quadratic, 0.1)], ids=["many kinks", "noisy solves"]
)
def test_at_the_tolerance_of_a_layer_beta_and_the_solves_adapt_until_the_difference_is_as_accurate(
    setup: Callable[..., adjoints.Setup], beta: float
) -> None:
    """32 × 40 entries, some of them nearly at a kink, and solves whose noise β divides."""
    v, found = torch.ones(32, 40, dtype=torch.float64), []
    for adjoint, tolerance in ((oc.Implicit(), 1e-12), (oc.EquilibriumPropagation(beta=beta), 1e-6)):
        layer, inputs = setup(40, 32, adjoint, tolerance)
        solution = layer.solve(*inputs)
        found.append(torch.autograd.grad(solution.values[0], inputs, v))
    assert solution.stats.certified is not None
    assert solution.stats.certified.all()
    assert solution.stats.gradient_error is not None
    assert (solution.stats.gradient_error <= 1e-6).all()
    for want, got in zip(*found, strict=True):
        assert ((got - want).norm(dim=1) <= 1e-6 * want.norm(dim=1)).all()


def test_inside_one_active_set_the_gradient_does_not_depend_on_beta() -> None:
    found = [gradients(*drawn(BY_NAME["inequalities"], 4, oc.EquilibriumPropagation(beta=b)))[0] for b in (3e-2, 3e-3)]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(
    ("options", "order", "betas"),
    [
        ({"points": 1, "max_halvings": 0}, 1.0, (0.05, 0.025)),
        ({"max_halvings": 0}, 2.0, (0.1, 0.05)),
        ({"richardson": True}, 4.0, (0.2, 0.1)),
    ],
    ids=["one-sided", "symmetric", "Richardson"],
)
def test_order_in_beta_on_a_smooth_program(options: dict[str, object], order: float, betas: tuple[float, ...]) -> None:
    large, small = (smooth_error({"beta": b, **options}) for b in betas)
    assert np.log2(large / small) == pytest.approx(order, abs=0.1)


def test_beta_is_halved_where_the_active_set_changes_and_divides_the_difference() -> None:
    """lasso: β = 3 drives entries through zero. Uncertified, the gradient is wrong; halved, exact."""
    case = BY_NAME["lasso"]
    want, _ = gradients(*drawn(case, 6, oc.Implicit()))
    bold = oc.EquilibriumPropagation(beta=3.0, max_halvings=0)
    with pytest.warns(GradientWarning, match="may be off"):
        wrong, solution = gradients(*drawn(case, 6, bold))
    assert solution.stats.certified is not None
    assert not solution.stats.certified.all()
    right, solution = gradients(*drawn(case, 6, replace(bold, max_halvings=12)))
    assert solution.stats.certified is not None
    assert solution.stats.certified.all()
    assert max(float((a - b).norm() / b.norm()) for a, b in zip(wrong, want, strict=True)) > 1e-2
    for a, b in zip(right, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-7)


def test_on_smooth_programs_halving_ends_when_the_error_is_small_enough() -> None:
    """Nothing certifies; β falls until the square of the departure does, not until rounding is all that is left."""
    x = torch.randn(3, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    error, steps = [], []
    for adjoint in (oc.EquilibriumPropagation(beta=0.1), oc.EquilibriumPropagation(beta=0.1, max_halvings=0)):
        solution = smooth_layer(adjoint).solve(point := (2 * x).requires_grad_())
        (grad,) = torch.autograd.grad(solution.values[0].sum(), point)
        (want,) = torch.autograd.grad(smooth_layer(oc.Implicit())(point)[0].sum(), point)
        error.append(float((grad - want).norm() / want.norm()))
        assert solution.stats.record.error is not None
        steps.append(int(solution.stats.record.error.steps.max()))
    assert error[0] < 1e-6 < error[1]
    assert steps[0] <= 20 * steps[1]


def test_what_is_never_certified_may_fall_back_to_the_implicit_adjoint() -> None:
    assert smooth_error({"beta": 0.5, "max_halvings": 0}) > 1e-3
    assert smooth_error({"beta": 0.5, "max_halvings": 0, "fallback": oc.Implicit()}) < 1e-12


def test_a_passage_through_a_kink_between_equal_slopes_is_seen() -> None:
    """|u| + ½(u − x)² at x = 0, v = 1: at ±β both slopes are 1, but the solution rests at 0 in between."""
    x, u = oc.Input(1, name="x"), cp.Variable(1, name="u")
    problem = cp.Problem(cp.Minimize(cp.norm1(u) + 0.5 * cp.sum_squares(u - x)))
    adjoint = oc.EquilibriumPropagation(beta=3.0, max_halvings=4)
    layer = oc.compile(problem, adjoint=adjoint, tolerance=1e-10).double()
    point = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    solution = layer.solve(point)
    (grad,) = torch.autograd.grad(solution.values[0].sum(), point)
    assert float(grad) == 0.0
    assert solution.stats.certified is not None
    assert bool(solution.stats.certified)


def test_a_zero_cotangent_gives_exactly_zero_without_a_solve() -> None:
    layer, inputs = drawn(BY_NAME["opteq"], 3, oc.EquilibriumPropagation())
    solution = layer.solve(*inputs)
    grads = torch.autograd.grad(0.0 * solution.values[0].sum(), [*inputs, *layer.parameters()])
    assert all((g == 0).all() for g in grads)
    assert solution.stats.record.error is not None
    assert (solution.stats.record.error.steps == 0).all()


def test_a_failed_sample_has_a_zero_gradient_and_spoils_nothing() -> None:
    layer, (x,) = drawn(BY_NAME["opteq"], 3, oc.EquilibriumPropagation())
    clean = torch.autograd.grad(layer(x[[0, 2]])[0].sum(), list(layer.parameters()))
    bad = x.detach().clone()
    bad[1, 0] = torch.nan
    bad.requires_grad_()
    with pytest.warns(SolveWarning):
        (u,) = layer(bad)
    grads = torch.autograd.grad(u.sum(), [bad, *layer.parameters()])
    assert (grads[0][1] == 0).all()
    for a, b in zip(grads[1:], clean, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_a_second_derivative_raises() -> None:
    layer, (x,) = drawn(BY_NAME["opteq"], 2, oc.EquilibriumPropagation())
    (first,) = torch.autograd.grad(layer(x)[0].pow(2).sum(), x, create_graph=True)
    with pytest.raises(OrderError, match=r"Fix: compile with adjoint=Implicit"):
        torch.autograd.grad(first.sum(), x)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_vmap_of_the_gradient_is_the_loop() -> None:
    layer, inputs = drawn(BY_NAME["box_qp"], 3, oc.EquilibriumPropagation())
    fixed = [t.detach() for t in inputs]

    def loss(q: Tensor, *rest: Tensor) -> Tensor:
        return layer(rest[0], q, *rest[1:])[0].pow(2).sum()

    rest = [fixed[0], *fixed[2:]]
    together = torch.func.vmap(torch.func.grad(loss))(fixed[1], *rest)
    alone = torch.stack([torch.func.grad(loss)(fixed[1][i], *(t[i] for t in rest)) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-8, rtol=1e-8)


def test_a_map_without_energy_is_refused(generator: torch.Generator) -> None:
    """With a skew part the difference would be wrong by 100 %."""
    theta = parameters(6, 2, generator, symmetric=False)
    unit = Unit(6, "relu", symmetric=False)
    problem = FixedPoint(
        splitting=unit, solve=by_iteration(unit, Plain(), Stop(tolerance=1e-10, max_steps=1000)), tolerance=1e-10
    )
    with pytest.raises(UnsupportedError, match=r"no energy.*Fix: compile with adjoint=Implicit"):
        oc.EquilibriumPropagation().equilibrate(problem, unit.start(2, theta), theta)


@pytest.mark.parametrize(
    "options", [{"beta": 0.0}, {"points": 3}, {"points": 1, "richardson": True}, {"max_halvings": -1}]
)
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="Fix:"):
        oc.EquilibriumPropagation(**options)


def test_single_precision_keeps_the_figures_of_single_precision() -> None:
    problem, inputs, outputs = BY_NAME["opteq"].make()
    found = []
    for dtype, adjoint in ((torch.float64, oc.Implicit()), (torch.float32, oc.EquilibriumPropagation(beta=0.2))):
        layer = oc.compile(problem, inputs=inputs, outputs=outputs, adjoint=adjoint, tolerance=1e-6).to(dtype)
        x = torch.tensor(np.random.default_rng(0).normal(size=(4, 5)), dtype=dtype, requires_grad=True)
        found.append(torch.autograd.grad(layer(x)[0].sum(), x)[0].double())
    assert (found[1] - found[0]).norm() < 1e-4 * found[0].norm()
