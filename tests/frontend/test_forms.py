"""Geometric and complex programs through compile: values, gradients, saved layers and verification."""

from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc

TIGHT = 1e-10
TIGHTER = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def box() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """The largest box of bounded surface: all sides √(area/6)."""
    sides, area = [cp.Variable(pos=True, name=name) for name in "hwd"], cp.Parameter(pos=True, name="area")
    h, w, d = sides
    return cp.Problem(cp.Maximize(h * w * d), [2 * (h * w + h * d + w * d) <= area]), [area], sides


def test_geometric_programs_take_and_return_the_users_numbers() -> None:
    problem, inputs, sides = box()
    layer = oc.compile(problem, inputs=inputs, outputs=sides, gp=True, tolerance=TIGHT)
    area = double(6.0, 2.0, 11.0).requires_grad_()
    for found in layer(area):
        torch.testing.assert_close(found, (area / 6).sqrt(), atol=1e-7, rtol=1e-7)
    (gradient,) = torch.autograd.grad(layer(area)[1].sum(), area)
    torch.testing.assert_close(gradient, 0.5 / (6 * area.detach()).sqrt(), atol=1e-6, rtol=1e-6)


def test_geometric_layers_are_verified_and_saved(tmp_path: Path) -> None:
    problem, inputs, sides = box()
    layer = oc.compile(problem, inputs=inputs, outputs=sides, gp=True, tolerance=TIGHT)
    report = oc.verify(layer, double(3.0, 7.0))
    assert report.ok, str(report)
    oc.save(layer, tmp_path / "box.opteq")
    loaded = oc.load(tmp_path / "box.opteq")
    torch.testing.assert_close(loaded(double(5.0))[0], layer(double(5.0))[0])


def test_weights_of_geometric_programs_are_trained() -> None:
    x, price = cp.Variable(pos=True), oc.Weight(name="price", pos=True, init=2.0)
    layer = oc.compile(cp.Problem(cp.Minimize(price * x + 1 / x)), gp=True, tolerance=TIGHT).double()
    (found,) = layer()
    torch.testing.assert_close(found, double(0.5).sqrt().squeeze(), atol=1e-7, rtol=1e-7)
    (gradient,) = torch.autograd.grad(found, layer.weights.raw("price"))
    assert float(gradient) < 0


def test_a_problem_that_is_not_geometric_is_refused() -> None:
    x = cp.Variable(pos=True)
    with pytest.raises(oc.NotConvexError, match="DGP"):
        oc.compile(cp.Problem(cp.Maximize(x + 1 / x)), gp=True)
    with pytest.raises(oc.UnsupportedError, match="geometric program"):
        oc.compile(cp.Problem(cp.Minimize(x + 1 / x)), outputs=[2 * x], gp=True)


def hermitian() -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    """The density matrix of least energy and largest overlap with a state that b turns."""
    x, b = cp.Variable((2, 2), hermitian=True, name="X"), cp.Parameter(2, name="b")
    energy = np.array([[1.0, 0.5 - 0.3j], [0.5 + 0.3j, -0.4]])
    shift = b[0] * np.array([[0, 1], [1, 0]]) + b[1] * np.array([[0, -1j], [1j, 0]])
    goal = cp.real(cp.trace((energy + shift) @ x)) + cp.sum_squares(x)
    return cp.Problem(cp.Minimize(goal), [x >> 0, cp.real(cp.trace(x)) == 1]), b, x


def test_hermitian_programs_return_complex_values_with_gradients() -> None:
    problem, b, x = hermitian()
    layer = oc.compile(problem, inputs=[b], outputs=[x, cp.real(x[0, 1])], tolerance=TIGHT)
    values = torch.tensor([[0.3, -0.2], [-1.0, 0.4]], dtype=torch.float64, requires_grad=True)
    found, corner = layer(values)
    assert found.is_complex()
    torch.testing.assert_close(found[:, 0, 1].real, corner)
    for i, value in enumerate(values.detach()):
        b.value = value.numpy()
        problem.solve(solver=cp.CLARABEL, **TIGHTER)
        np.testing.assert_allclose(found[i].detach().numpy(), x.value, atol=1e-6)
    assert torch.autograd.gradcheck(lambda v: layer(v)[0].imag, values, eps=1e-5, atol=1e-4, rtol=1e-4)
    assert oc.verify(layer, values.detach()).ok


def test_complex_least_squares_is_the_normal_equations() -> None:
    generator = np.random.default_rng(4)
    a = generator.normal(size=(5, 3)) + 1j * generator.normal(size=(5, 3))
    x, re = cp.Variable(3, complex=True), cp.Parameter(5)
    total = cp.sum(cp.real(x)) == 1
    problem = cp.Problem(cp.Minimize(cp.sum_squares(a @ x - re)), [total])
    layer = oc.compile(problem, inputs=[re], outputs=[x, total], tolerance=TIGHT)
    value = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found, dual = layer(value)
    slope = 2 * (found @ torch.tensor(a).T - value) @ torch.tensor(a).conj()
    torch.testing.assert_close(slope.real, -dual[:, None].expand(2, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(slope.imag, torch.zeros(2, 3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_complex_parameters_and_multipliers_are_refused_in_words() -> None:
    x, c = cp.Variable(2, complex=True), cp.Parameter(2, complex=True, name="c")
    with pytest.raises(oc.UnsupportedError, match=r"complex parameter 'c'.*re \+ 1j \* im"):
        oc.compile(cp.Problem(cp.Minimize(cp.norm(x - c))), inputs=[c])
    tied = x == 1j
    with pytest.raises(oc.UnsupportedError, match="complex"):
        oc.compile(cp.Problem(cp.Minimize(cp.norm(x)), [tied]), outputs=[tied])


@pytest.mark.parametrize("attribute", ["complex", "imag", "hermitian"])
def test_a_part_that_nothing_uses_is_zero(attribute: str) -> None:
    """As CVXPY fills it in: the objective looks at one part of X only."""
    X = cp.Variable((2, 2), name="X", **{attribute: True})
    target = np.array([[1.0, 2.0], [2.0, -1.0]])
    part = cp.imag(X) if attribute == "imag" else cp.real(X)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(part - target)))
    (found,) = oc.compile(problem, outputs=[X]).double()()
    problem.solve(solver="CLARABEL")
    np.testing.assert_allclose(found.detach().numpy(), X.value, atol=1e-6)
