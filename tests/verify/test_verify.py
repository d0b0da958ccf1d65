"""verify on real layers: it passes what is right, and, more important, fails what is wrong."""

import copy
import json
import sys
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor
from typing_extensions import override

import opteq_cvx as oc
from opteq_cvx.errors import InputError, MissingExtraError
from opteq_cvx.layer import EquilibriumLayer
from opteq_cvx.options import Options
from opteq_cvx.solution import Solution
from opteq_cvx.verify import verify
from tests.verify.programs import ridge, ridge_solution, unit


def _unit_layer(n: int = 4, m: int = 3) -> EquilibriumLayer:
    x = oc.Input(m, name="x")
    W = oc.Weight((n, n), name="W", norm=0.9)
    U, b = oc.Weight((n, m), name="U"), oc.Weight(n, name="b")
    lam = oc.Weight(name="lam", nonneg=True, init=0.05)
    u = cp.Variable(n, nonneg=True, name="u")
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(n) - W @ W.T)) - (U @ x + b) @ u
    return oc.compile(cp.Problem(cp.Minimize(energy + lam * cp.norm1(u))), outputs=[u])


def _inputs(batch: int = 2, m: int = 3) -> Tensor:
    return torch.randn(batch, m, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_right_layer_is_verified_with_every_reference() -> None:
    report = verify(_unit_layer(), _inputs(1))
    assert report.ok, str(report)
    assert report.max_error < 1e-7
    assert report.max_gradient_error < 1e-6
    assert report.source == "the user's problem"
    assert {row.parameter for row in report.gradients} == {"x", "W", "U", "b", "lam"}
    assert all(row.judged == "differences" for row in report.gradients)
    assert all(row.cvxpylayers < 1e-5 for row in report.gradients)
    json.dumps(report.to_dict(), allow_nan=False)


def test_the_layer_and_the_problem_are_left_as_they_were() -> None:
    layer = _unit_layer()
    before = copy.deepcopy(layer.state_dict())
    parameters = {p.name(): np.copy(p.value) for p in layer.declaration.weights.values()}
    verify(layer, _inputs(), gradients=False)
    assert next(layer.parameters()).dtype is torch.get_default_dtype()
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key])
    for parameter in layer.declaration.weights.values():
        np.testing.assert_array_equal(parameter.value, parameters[parameter.name()])
    assert all(p.value is None for p in layer.declaration.inputs)


def test_a_layer_without_its_problem_is_checked_against_a_rebuilt_one() -> None:
    layer = _unit_layer()
    layer.declaration = None
    report = verify(layer, _inputs(1), cvxpylayers=False)
    assert report.ok, str(report)
    assert "rebuilt" in report.source
    assert all(row.violation < 1e-9 and row.objective_gap < 1e-9 for row in report.samples)


def test_a_program_by_hand() -> None:
    program, values = ridge()
    weights = {k: values[k] for k in ("A", "mu")}
    layer = EquilibriumLayer.from_program(program, weights, Options())
    b = torch.from_numpy(values["b"])
    report = verify(layer, b)
    assert report.ok, str(report)
    assert len(report.samples) == 1
    layer = copy.deepcopy(layer).double()
    np.testing.assert_allclose(layer(b)[0].detach(), ridge_solution(values), atol=1e-5)


class _Tampered(EquilibriumLayer):
    """A layer whose solutions pass through `tamper` on their way out."""

    tamper: Callable[[Solution], Solution]

    @override
    def solve(self, *inputs: Tensor, **options: object) -> Solution:
        return type(self).tamper(super().solve(*inputs, **options))


def _tampered(tamper: Callable[[Solution], Solution]) -> EquilibriumLayer:
    layer = _unit_layer()
    layer.__class__ = type("Tampered", (_Tampered,), {"tamper": staticmethod(tamper)})
    return layer


def _with_values(solution: Solution, change: Callable[[Tensor], Tensor]) -> Solution:
    values = tuple(change(v) for v in solution.values)
    variables = {k: change(v) for k, v in solution.variables.items()}
    return Solution(values, variables, solution.status, solution.stats, solution.objective, solution.state)


def test_wrong_values_fail() -> None:
    report = verify(_tampered(lambda s: _with_values(s, lambda v: v + 1e-4)), _inputs(), gradients=False)
    assert not report.ok
    assert "not the exact ones" in report.samples[0].note
    assert report.max_error > 1e-5


def test_values_outside_the_constraints_fail() -> None:
    report = verify(_tampered(lambda s: _with_values(s, lambda v: v - 0.1)), _inputs(), gradients=False)
    assert "violated" in report.samples[0].note
    assert report.samples[0].violation > 0.01


@pytest.mark.parametrize("cvxpylayers", [True, False])
def test_a_wrong_gradient_fails(cvxpylayers: bool) -> None:
    """Right values, but a gradient 0.1 % too long."""

    def stretch(solution: Solution) -> Solution:
        return _with_values(solution, lambda v: v.detach() + 1.001 * (v - v.detach()))

    report = verify(_tampered(stretch), _inputs(1), cvxpylayers=cvxpylayers)
    assert all(row.ok for row in report.samples)
    assert not any(row.ok for row in report.gradients)
    assert report.max_gradient_error == pytest.approx(1e-3, rel=0.9)


def test_a_missing_gradient_fails() -> None:
    program, values = unit()
    layer = EquilibriumLayer.from_program(program, {k: values[k] for k in ("W", "U", "lam")}, Options())
    layer.__class__ = type("Tampered", (_Tampered,), {"tamper": staticmethod(_detach_weights)})
    report = verify(layer, torch.from_numpy(values["x"]), cvxpylayers=False)
    assert not report.ok


def _detach_weights(solution: Solution) -> Solution:
    return _with_values(solution, lambda v: v.detach() + 0.0 * v)


def test_an_indefinite_program_is_not_believed() -> None:
    """The layer must say not_convex; one that says converged fails."""
    W = oc.Weight((3, 3), name="W", init=2.0 * np.eye(3))
    x = oc.Input(3, name="x")
    u = cp.Variable(3, name="u")
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(3) - W @ W.T)) - x @ u
    layer = oc.compile(cp.Problem(cp.Minimize(energy), [u >= -1, u <= 1]), outputs=[u])
    report = verify(layer, torch.randn(2, 3))
    assert report.ok, str(report)
    assert {row.status for row in report.samples} == {row.exact for row in report.samples} == {"not_convex"}
    assert not report.gradients


def test_bad_samples_are_judged_and_leave_the_others_alone() -> None:
    inputs = _inputs(3)
    inputs[1, 0] = float("nan")
    report = verify(_unit_layer(n=2), inputs, cvxpylayers=False)
    assert report.ok, str(report)
    assert [row.exact for row in report.samples] == ["optimal", "invalid", "optimal"]
    assert {row.sample for row in report.gradients} == {0, 2}


def test_several_solutions_are_judged_by_the_nearest() -> None:
    """‖Ax − b‖² with a wide A has a plane of solutions."""
    A = np.random.default_rng(0).normal(size=(2, 4))
    b = oc.Input(2, name="b")
    x = cp.Variable(4, name="x")
    layer = oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + cp.sum(cp.pos(0 * x)))), outputs=[x])
    report = verify(layer, torch.ones(1, 2), gradients=False)
    assert report.ok, str(report)


def test_batches_shared_inputs_and_chosen_samples() -> None:
    a, c = oc.Input(3, name="a", nonneg=True), oc.Input((3, 3), name="c")
    x = cp.Variable(3, name="x")
    layer = oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(x - c @ a) + cp.norm1(x))), outputs=[x, 2 * x])
    generator = torch.Generator().manual_seed(1)
    batch = torch.rand(2, 2, 3, dtype=torch.float64, generator=generator)
    shared = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    report = verify(layer, batch, shared, samples=[0, 3], cvxpylayers=False)
    assert report.ok, str(report)
    assert [row.sample for row in report.samples] == [0, 3]
    assert {row.parameter for row in report.gradients} == {"a", "c"}
    with pytest.raises(InputError, match="sample 4"):
        verify(layer, batch, shared, samples=[4])


def test_a_problem_of_ones_own() -> None:
    layer = _unit_layer(n=2, m=2)
    values = {name: layer.weights.numpy(name) for name in layer.weights.names}
    x, u = cp.Parameter(2, name="x"), cp.Variable(2, name="u")
    P = np.eye(2) - values["W"] @ values["W"].T
    linear = values["U"] @ x + values["b"] - values["lam"]
    own = cp.Problem(cp.Minimize(0.5 * cp.quad_form(u, P) - linear @ u), [u >= 0])
    assert verify(layer, _inputs(2, 2), problem=own, gradients=False).ok
    other = cp.Problem(cp.Minimize(0.5 * cp.quad_form(u, P) - 2 * linear @ u), [u >= 0])
    assert not verify(layer, _inputs(2, 2), problem=other, gradients=False).ok
    unknown = cp.Problem(cp.Minimize(cp.sum_squares(u - cp.Parameter(2, name="y"))))
    with pytest.raises(InputError, match="'y'"):
        verify(layer, _inputs(2, 2), problem=unknown)


def test_a_problem_that_does_not_name_the_outputs() -> None:
    layer = _unit_layer(n=2, m=2)
    x = cp.Parameter(2, name="x")
    v = cp.Variable(2, name="v")
    nameless = cp.Problem(cp.Minimize(cp.sum_squares(v - x)))
    layer.declaration = None
    with pytest.raises(InputError, match="no variable named 'u'"):
        verify(layer, _inputs(2, 2), problem=nameless, gradients=False)
    twice = cp.Problem(cp.Minimize(cp.sum_squares(cp.Variable(2, name="u") - cp.Variable(2, name="u") - x)))
    with pytest.raises(InputError, match="two variables of one name"):
        verify(layer, _inputs(2, 2), problem=twice, gradients=False)


@pytest.mark.parametrize(
    ("attributes", "value"),
    [
        ({"diag": True}, np.diag([1.0, 0.5])),
        ({"symmetric": True}, np.array([[1.0, 0.3], [0.3, 0.5]])),
        ({"sparsity": ([0, 0, 1], [0, 1, 1])}, np.array([[1.0, 0.3], [0.0, 0.5]])),
    ],
    ids=str,
)
def test_gradients_count_along_the_attribute_only(attributes: dict[str, object], value: np.ndarray) -> None:
    """An input matrix with zeros or a symmetry: what points out of its set is no part of the gradient."""
    A, u = oc.Input((2, 2), name="A", **attributes), cp.Variable(2, name="u")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ u - 1) + cp.sum_squares(u)))
    report = verify(oc.compile(problem), torch.as_tensor(value)[None], cvxpylayers=False)
    assert report.ok, str(report)
    assert [row.judged for row in report.gradients] == ["differences"]


def test_float32_layers_are_checked_in_float64_and_the_report_says_so() -> None:
    layer = _unit_layer().float()
    report = verify(layer, _inputs(1).float(), cvxpylayers=False)
    assert report.ok, str(report)
    assert any("float64" in note for note in report.notes)


def test_cvxpylayers_can_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from opteq_cvx.verify import layers, run

    monkeypatch.setattr(layers, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "cvxpylayers", None)
    report = verify(_unit_layer(n=3), _inputs(1), seed=1)
    assert report.ok
    assert any("cvxpylayers was not used" in note for note in report.notes)
    monkeypatch.setitem(sys.modules, "cvxpylayers.torch", None)
    with pytest.raises(MissingExtraError, match="reference"):
        run.verify(_unit_layer(n=3), _inputs(1), cvxpylayers=True)
