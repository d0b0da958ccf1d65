"""Misuse gets an error that quotes the user's words and the remedy; bad data gets a status, its neighbors an answer."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.binding import bind
from opteq_cvx.errors import CompileError, DTypeError, InputError, OpteqError, SolveError, SolveWarning
from opteq_cvx.ir.param import Leaf, Stage
from opteq_cvx.status import Status


def box_layer(**options: object) -> oc.EquilibriumLayer:
    low, high, c = oc.Input(3, name="low"), oc.Input(3, name="high"), oc.Input(3, name="c")
    x = cp.Variable(3, name="x")
    q = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]])
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, q) + c @ x), [x >= low, x <= high])
    return oc.compile(problem, **options).double()


def data(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    c = torch.randn(count, 3, generator=g, dtype=torch.float64)
    return -torch.ones(count, 3, dtype=torch.float64), torch.ones(count, 3, dtype=torch.float64), c


def test_a_non_dcp_problem_is_refused_with_the_expression() -> None:
    x = cp.Variable(3, name="x")
    with pytest.raises(CompileError, match=r"(?s)x.*Fix:"):
        oc.compile(cp.Problem(cp.Minimize(cp.sum(cp.sqrt(x)) + cp.sum_squares(x))))


def test_a_parameter_that_is_neither_input_nor_weight_is_named() -> None:
    x, stray = cp.Variable(3, name="x"), cp.Parameter(3, name="stray")
    with pytest.raises(CompileError, match=r"(?s)stray.*Fix:.*inputs="):
        oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(x - stray))))


def test_integer_variables_are_refused() -> None:
    x = cp.Variable(3, integer=True, name="x")
    with pytest.raises(CompileError, match=r"(?s)x.*Fix:"):
        oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(x))))


@pytest.mark.parametrize(
    ("mangle", "error", "words"),
    [
        (lambda a: a[:2], InputError, "missing input 'c'"),
        (lambda a: [*a, a[0]], InputError, "4 inputs"),
        (lambda a: [a[0], a[1], a[2][:, :2]], InputError, r"'c' has shape \(2, 2\)"),
        (lambda a: [a[0], a[1], a[2].float()], DTypeError, "'c' has dtype torch.float32"),
        (lambda a: [a[0], a[1], a[2].long()], DTypeError, "'c' has dtype torch.int64"),
        (lambda a: [a[0][:1].expand(3, 3), a[1], a[2]], InputError, "batch axes do not broadcast"),
    ],
)
def test_misuse_of_a_call_raises_with_the_name(mangle: object, error: type[OpteqError], words: str) -> None:
    layer = box_layer()
    with pytest.raises(error, match=words) as caught:
        layer(*mangle(list(data(2))))  # type: ignore[operator]
    assert "Fix:" in str(caught.value)


def test_what_is_not_a_tensor_is_named() -> None:
    leaf = Leaf("c", (3,), Stage.INPUT)
    with pytest.raises(DTypeError, match=r"(?s)'c' is a ndarray.*Fix: wrap it"):
        bind((leaf,), [np.zeros(3)], {}, None)


def test_named_inputs_are_checked() -> None:
    low, high, c = data(2)
    layer = box_layer()
    torch.testing.assert_close(layer(low, high, c=c), layer(low, high, c))
    with pytest.raises(InputError, match="unknown input 'cost'"):
        layer(low, high, cost=c)
    with pytest.raises(InputError, match="'c' given twice"):
        layer(low, high, c, c=c)


def test_one_bad_sample_does_not_spoil_the_batch() -> None:
    low, high, c = data(5)
    reference = box_layer()(low, high, c, tolerance=1e-10)[0]
    c[1, 0] = torch.nan
    low[3] = 2.0  # above `high`: the box is empty
    c.requires_grad_()
    layer = box_layer()
    with pytest.warns(SolveWarning, match="2 of 5 samples failed"):
        solution = layer.solve(low, high, c, tolerance=1e-10)
    expected = [Status.CONVERGED, Status.NON_FINITE_INPUT, Status.CONVERGED, Status.PRIMAL_INFEASIBLE, Status.CONVERGED]
    assert list(solution.status) == expected
    good = [0, 2, 4]
    torch.testing.assert_close(solution.values[0][good], reference[good])
    (grad,) = torch.autograd.grad(solution.values[0].sum(), c)
    assert torch.isfinite(grad).all()
    assert (grad[[1, 3]] == 0).all()
    assert (grad[good] != 0).any()


def test_on_failure_says_what_happens_to_a_failed_sample() -> None:
    low, high, c = data(2)
    c[0, 0] = torch.inf
    with pytest.warns(SolveWarning):
        (x,) = box_layer(on_failure="nan")(low, high, c)
    assert torch.isnan(x[0]).all()
    assert torch.isfinite(x[1]).all()
    with pytest.raises(SolveError, match="1 of 2 samples failed"):
        box_layer(on_failure="raise")(low, high, c)


def test_an_indefinite_psd_wrap_is_refused_at_the_call() -> None:
    weight = oc.Weight((2, 2), name="W", init=2 * np.eye(2))
    c, u = oc.Input(2, name="c"), cp.Variable(2, nonneg=True, name="u")
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(2) - weight @ weight.T)) - c @ u
    layer = oc.compile(cp.Problem(cp.Minimize(energy))).double()
    with pytest.warns(SolveWarning, match="not_convex"):
        solution = layer.solve(torch.ones(3, 2, dtype=torch.float64))
    assert solution.status.counts() == {Status.NOT_CONVEX: 3}


def test_an_indefinite_constant_is_refused_at_compile_time() -> None:
    u = cp.Variable(2, name="u")
    with pytest.raises(CompileError, match=r"(?s)eigenvalue.*Fix:"):
        oc.compile(cp.Problem(cp.Minimize(cp.quad_form(u, cp.psd_wrap(np.diag([1.0, -1.0]))))))


def test_a_violated_attribute_is_the_status_invalid_input() -> None:
    lam, x = oc.Input(name="lam", nonneg=True), cp.Variable(3, name="x")
    layer = oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(x - 1) + lam * cp.norm1(x)))).double()
    with pytest.warns(SolveWarning, match="invalid_input"):
        solution = layer.solve(torch.tensor([0.5, -0.5], dtype=torch.float64))
    assert list(solution.status) == [Status.CONVERGED, Status.INVALID_INPUT]


def test_nan_weights_are_a_status_for_every_sample() -> None:
    b, x = oc.Weight(3, name="b", init=0.0), oc.Input(3, name="x")
    u = cp.Variable(3, name="u")
    layer = oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(u - x - b)))).double()
    with torch.no_grad():
        next(layer.parameters()).fill_(torch.nan)
    with pytest.warns(SolveWarning, match="non_finite_input"):
        solution = layer.solve(torch.ones(2, 3, dtype=torch.float64))
    assert solution.status.counts() == {Status.NON_FINITE_INPUT: 2}


def test_an_empty_batch_returns_empty_values() -> None:
    low, high, c = (a[:0] for a in data(1))
    solution = box_layer().solve(low, high, c)
    assert solution.values[0].shape == (0, 3)
    assert solution.status.all_converged


def test_an_input_without_batch_axes_is_shared_and_its_gradient_is_the_sum() -> None:
    low, high, c = data(4)
    layer, shared = box_layer(), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (x,) = layer(low, high, shared + 0 * c[0])
    assert x.shape == (4, 3)
    (grad,) = torch.autograd.grad(x.pow(2).sum() + x.sum(), shared)
    total = torch.zeros(3, dtype=torch.float64)
    for i in range(4):
        alone = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        (one,) = layer(low[i], high[i], alone)
        total += torch.autograd.grad(one.pow(2).sum() + one.sum(), alone)[0]
    torch.testing.assert_close(grad, total)


@pytest.mark.parametrize("parts", ["curved", "linear"])
def test_a_program_without_unknowns_is_refused_by_name(parts: str) -> None:
    u, w = cp.Variable((0,), name="u"), cp.Variable(3, name="w")
    objective = cp.sum_squares(u) + cp.norm1(u) if parts == "curved" else cp.sum(u)
    with pytest.raises(CompileError, match=r'(?s)no variable has entries \("u"\).*Fix:'):
        oc.compile(cp.Problem(cp.Minimize(objective), [u >= 0]), outputs=[u])
    some = oc.compile(cp.Problem(cp.Minimize(objective + cp.sum_squares(w - 1.0)), [u >= 0]), outputs=[u, w])
    empty, full = some()
    assert empty.shape == (0,)
    torch.testing.assert_close(full, torch.ones(3))
