"""Reading a problem preserves its meaning: objective and constraints equal CVXPY's at random points."""

import warnings

import cvxpy as cp
import numpy as np
import pytest

from opteq_cvx.frontend import read, recognized, variables
from tests.frontend import cases, interpret

ROUNDING = 1e-9  # relative; both sides are float64 evaluations of one formula


def build(text: str) -> cp.Expression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CVXPY's advice about spellings that users write all the same
        return eval(text, cases.world())


@pytest.fixture(autouse=True)
def _every_node_is_an_atom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognized, "recognize", interpret.recognize_all)
    monkeypatch.setattr(variables, "recognize", interpret.recognize_all)


@pytest.mark.parametrize("text", cases.MINIMIZE)
def test_objective_is_cvxpys(text: str) -> None:
    problem = cp.Problem(cp.Minimize(build(text)))
    program = read(problem).program
    expected = float(problem.objective.value)
    assert interpret.objective(program, *cases.values_of(problem)) == pytest.approx(expected, rel=ROUNDING)


@pytest.mark.parametrize("text", cases.MAXIMIZE)
def test_maximized_objective_is_cvxpys(text: str) -> None:
    problem = cp.Problem(cp.Maximize(build(text)))
    program = read(problem).program
    assert program.sign == -1
    expected = float(problem.objective.value)
    assert interpret.objective(program, *cases.values_of(problem)) == pytest.approx(expected, rel=ROUNDING)


@pytest.mark.parametrize("text", cases.AFFINE)
def test_affine_output_is_cvxpys(text: str) -> None:
    expr = build(text)
    everything = sum(cp.sum(v) for v in expr.variables())
    problem = cp.Problem(cp.Minimize(everything + sum(cp.sum(p) for p in expr.parameters())))
    (out,) = read(problem, outputs=[expr]).program.outputs
    found = interpret.affine(out.value, *cases.values_of(problem))
    np.testing.assert_allclose(found, np.reshape(expr.value, expr.shape), rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("text", cases.CONSTRAINTS)
def test_violation_is_cvxpys(text: str) -> None:
    constraint = build(text)
    problem = cp.Problem(cp.Minimize(0), [constraint])
    program = read(problem).program
    (record,) = program.constraints
    (at,) = record.terms
    found = interpret.violation(program.terms[at], *cases.values_of(problem))
    if "norm(x) <= lam" in text and text.startswith("2"):
        found = 2 * found  # 2‖x‖ ≤ λ is read as ‖x‖ ≤ λ/2
    expected = np.abs(constraint.residual)  # a violation is a norm for some classes
    np.testing.assert_allclose(found, np.reshape(expected, found.shape), rtol=ROUNDING, atol=ROUNDING)
