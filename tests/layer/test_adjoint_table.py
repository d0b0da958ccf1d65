"""Every splitting × adjoint mode: against differences of Clarabel, cvxpylayers and closed forms, in float64."""

import itertools
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.adjoint import AdjointMode
from tests.layer.cases import CASES, Case

IMPLICIT, PROPAGATED = oc.Implicit(), oc.EquilibriumPropagation(beta=0.03)
MODES: dict[str, AdjointMode] = {"implicit": IMPLICIT, "propagation": PROPAGATED, "unrolled": oc.Unrolled(steps=400)}
UNROLLED = ("opteq", "box_qp", "projection", "inequalities")
TABLE = [
    (case, name, name == "implicit") for case in CASES for name in MODES if name != "unrolled" or case.name in UNROLLED
]


@pytest.mark.parametrize(("case", "mode", "layers"), TABLE, ids=lambda v: getattr(v, "name", str(v)))
def test_gradients_are_those_of_the_exact_solver(case: Case, mode: str, layers: bool) -> None:
    """≤ 1e-6 relative in every input and weight; cvxpylayers beside it for the default mode."""
    problem, inputs, outputs = case.make()
    layer = oc.compile(problem, inputs=inputs, outputs=outputs, adjoint=MODES[mode]).double()
    rng = np.random.default_rng(5)
    columns = [torch.tensor(np.stack(c)) for c in zip(*[case.draw(rng)], strict=True)]
    report = oc.verify(layer, *columns, gradient_tolerance=1e-6, cvxpylayers=layers)
    assert report.gradients
    assert all(row.ok for row in report.gradients), str(report)
    assert any(row.judged for row in report.gradients), str(report)


def _softmax() -> tuple[cp.Problem, Callable[..., Tensor], list[tuple[int, ...]]]:
    x, u = oc.Input(6, name="x"), cp.Variable(6, name="u")
    problem = cp.Problem(cp.Minimize(-cp.sum(cp.entr(u)) - x @ u), [cp.sum(u) == 1])
    return problem, lambda a: a.softmax(-1), [(6,)]


def _simplex() -> tuple[cp.Problem, Callable[..., Tensor], list[tuple[int, ...]]]:
    x, u = oc.Input(6, name="x"), cp.Variable(6, name="u")

    def projection(a: Tensor) -> Tensor:
        order = a.sort(dim=-1, descending=True).values
        ranks = torch.arange(1, a.shape[-1] + 1)
        thresholds = (order.cumsum(-1) - 1) / ranks
        count = (order > thresholds).sum(-1, keepdim=True)
        return torch.relu(a - thresholds.gather(-1, count - 1))

    return cp.Problem(cp.Minimize(cp.sum_squares(u - x)), [cp.sum(u) == 1, u >= 0]), projection, [(6,)]


def _least_squares() -> tuple[cp.Problem, Callable[..., Tensor], list[tuple[int, ...]]]:
    a, b, u = oc.Input((7, 4), name="A"), oc.Input(7, name="b"), cp.Variable(4, name="u")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(a @ u - b)))
    return problem, lambda m, c: torch.linalg.solve(m.mT @ m, (m.mT @ c[..., None]))[..., 0], [(7, 4), (7,)]


def _lasso() -> tuple[cp.Problem, Callable[..., Tensor], list[tuple[int, ...]]]:
    """On the support S with signs s: u_S = (AᵀA)_SS⁻¹ (Aᵀb − λs)_S; S and s from many proximal steps."""
    a, b, u = oc.Input((7, 5), name="A"), oc.Input(7, name="b"), cp.Variable(5, name="u")
    lam = 0.7

    def solution(m: Tensor, c: Tensor) -> Tensor:
        gram, right = m.mT @ m, (m.mT @ c[..., None])[..., 0]
        with torch.no_grad():
            point, step = torch.zeros_like(right), 1 / torch.linalg.matrix_norm(gram, 2)[..., None]
            for _ in range(5000):
                v = point - step * ((gram @ point[..., None])[..., 0] - right)
                point = v.sign() * torch.relu(v.abs() - lam * step)
            on = (point != 0).to(m)
        mixed = on[..., None] * gram * on[..., None, :] + torch.diag_embed(1 - on)
        return torch.linalg.solve(mixed, (on * (right - lam * point.sign()))[..., None])[..., 0]

    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(a @ u - b) + lam * cp.norm1(u)))
    return problem, solution, [(7, 5), (7,)]


@pytest.mark.parametrize("make", [_softmax, _simplex, _least_squares, _lasso], ids=lambda f: f.__name__[1:])
@pytest.mark.parametrize("mode", ["implicit", "propagation"])
def test_gradients_of_closed_forms(make: Callable[..., object], mode: str, generator: torch.Generator) -> None:
    problem, closed, shapes = make()  # type: ignore[misc]
    smooth = make is _softmax and mode == "propagation"
    adjoint = oc.EquilibriumPropagation(beta=0.03, richardson=True) if smooth else MODES[mode]
    layer = oc.compile(problem, adjoint=adjoint, tolerance=1e-11, gradient_tolerance=1e-3).double()
    inputs = [torch.randn(5, *s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    (u,), want = layer(*inputs), closed(*inputs)
    torch.testing.assert_close(u, want, atol=1e-9, rtol=1e-9)
    v = torch.randn(u.shape, generator=generator, dtype=torch.float64)
    pairs = zip(torch.autograd.grad(u, inputs, v), torch.autograd.grad(want, inputs, v), strict=True)
    for got, exact in pairs:
        assert (got - exact).norm() <= 1e-6 * exact.norm()


def test_truncated_gradients_approach_the_exact_one_with_their_steps() -> None:
    """The bias is ‖J‖^steps; more steps, less of it."""
    case = next(c for c in CASES if c.name == "opteq")
    errors = []
    for adjoint in (oc.Implicit(), *(oc.Truncated(steps=k) for k in (1, 5, 40, 200))):
        problem, inputs, outputs = case.make()
        layer = oc.compile(problem, inputs=inputs, outputs=outputs, adjoint=adjoint, tolerance=1e-12).double()
        x = torch.tensor(np.random.default_rng(0).normal(size=(4, 5)), requires_grad=True)
        errors.append(torch.autograd.grad(layer(x)[0].sum(), x)[0])
    exact, *others = errors
    gaps = [float((g - exact).norm() / exact.norm()) for g in others]
    assert all(a > b for a, b in itertools.pairwise(gaps))
    assert gaps[-1] < 1e-9


@pytest.mark.parametrize("adjoint", [IMPLICIT, PROPAGATED], ids=lambda a: type(a).__name__)
def test_the_gradient_of_a_shared_parameter_is_the_sum_over_the_batch(adjoint: AdjointMode) -> None:
    case = next(c for c in CASES if c.name == "inequalities")
    problem, inputs, outputs = case.make()
    layer = oc.compile(problem, inputs=inputs, outputs=outputs, adjoint=adjoint, tolerance=1e-11).double()
    rng = np.random.default_rng(1)
    g, hs = torch.tensor(case.draw(rng)[0]), torch.tensor(np.stack([case.draw(rng)[1] for _ in range(4)]))
    shared = g.clone().requires_grad_()
    together = torch.autograd.grad(layer(shared, hs)[0].pow(2).sum(), shared)[0]
    alone = torch.zeros_like(g)
    for h in hs:
        one = g.clone().requires_grad_()
        alone += torch.autograd.grad(layer(one, h)[0].pow(2).sum(), one)[0]
    torch.testing.assert_close(together, alone, atol=1e-7, rtol=1e-7)
