"""Parameters are inputs or weights; names, order and outputs are what the user wrote."""

import cvxpy as cp
import numpy as np
import pytest

import opteq_cvx as oc
from opteq_cvx.errors import CompileError
from opteq_cvx.frontend import read
from opteq_cvx.frontend.read import check_outputs
from opteq_cvx.frontend.roles import check_list
from opteq_cvx.ir.param import Stage


def test_inputs_come_first_in_the_given_order_then_weights() -> None:
    W = oc.Weight(3, name="W", seed=0)
    b = oc.Input(3, name="b")
    a = oc.Input(3, name="a")
    q = cp.Parameter(3, name="q")
    x = cp.Variable(3, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a - q) + (W + b) @ x))
    reading = read(problem, inputs=[q])
    assert [(p.name, p.stage) for p in reading.program.parameters] == [
        ("q", Stage.INPUT),
        ("b", Stage.INPUT),
        ("a", Stage.INPUT),
        ("W", Stage.WEIGHT),
    ]
    assert [p is r for p, r in zip(reading.declaration.inputs, (q, b, a), strict=True)] == [True] * 3
    assert reading.declaration.weights["W"] is W
    np.testing.assert_array_equal(reading.initial["W"], W.value)
    assert reading.initial["W"] is not W.value


def test_attributes_reach_the_leaf() -> None:
    W = oc.Weight((3, 3), name="W", norm=0.9, seed=0)
    x = oc.Input(3, name="x", nonneg=True)
    u = cp.Variable(3, name="u")
    leaves = read(cp.Problem(cp.Minimize(cp.sum_squares(u) - (W @ x) @ u))).program.parameters
    assert dict(leaves[0].attributes) == {"nonneg": True}
    assert dict(leaves[1].attributes) == {"norm": 0.9}


def test_hidden_parameters_are_found() -> None:
    m = oc.Weight(name="m", nonneg=True, seed=0)
    low = oc.Input(2, name="low")
    x = cp.Variable(2, name="x", bounds=[low, None])
    program = read(cp.Problem(cp.Minimize(cp.sum(cp.huber(x, m))))).program
    assert {p.name for p in program.parameters} == {"m", "low"}


def test_parameter_without_a_role_is_refused_with_both_remedies() -> None:
    q, x = cp.Parameter(3, name="q"), cp.Variable(3)
    with pytest.raises(CompileError, match=r"parameter 'q' of shape \(3,\).*inputs=\[..., q\].*opteq_cvx.Weight"):
        read(cp.Problem(cp.Minimize(cp.sum_squares(x - q))))


def test_repeated_name_is_refused() -> None:
    a, b = oc.Weight(3, name="w", seed=0), oc.Weight(3, name="w", seed=1)
    x = cp.Variable(3)
    with pytest.raises(CompileError, match="two parameters are named 'w'"):
        read(cp.Problem(cp.Minimize(cp.sum_squares(x - a) + b @ x)))


def test_wrong_input_list_is_refused() -> None:
    W, x = oc.Weight(3, name="W", seed=0), oc.Input(3, name="x")
    for inputs, words in (
        ([3.0], "holds float"),
        (["W"], "holds str"),
        ([W], "the Weight 'W'"),
        ([x, x], "'x' twice"),
    ):
        with pytest.raises(CompileError, match=words):
            check_list(inputs)


def test_outputs_are_variables_by_default_and_may_be_affine() -> None:
    W = oc.Weight((2, 3), name="W", seed=0)
    x, y = cp.Variable(3, name="x"), cp.Variable(name="y")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 1) + cp.square(y)))
    assert [o.name for o in read(problem).program.outputs] == ["x", "y"]
    (out,) = read(problem, outputs=[W @ x + y]).program.outputs
    assert (out.name, out.value.shape) == ("W @ x + y", (2,))
    assert {name for name, _ in out.value.parts} == {"x", "y"}
    assert read(problem, outputs=[W @ x]).declaration.weights["W"] is W


def test_wrong_outputs_are_refused() -> None:
    x, stranger = cp.Variable(3, name="x"), cp.Variable(name="stranger")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)))
    with pytest.raises(CompileError, match=r"norm1\(x\).*convex.*affine"):
        read(problem, outputs=[cp.norm1(x)])
    with pytest.raises(CompileError, match="'stranger'"):
        read(problem, outputs=[stranger])
    with pytest.raises(CompileError, match="holds a str"):
        check_outputs(problem.variables(), ["x"])


def test_variables_of_one_name_are_told_apart() -> None:
    a, b = cp.Variable(2, name="x"), cp.Variable(3, name="x")
    program = read(cp.Problem(cp.Minimize(cp.sum_squares(a) + cp.norm1(b)))).program
    assert [(v.name, v.shape) for v in program.variables] == [("x", (2,)), ("x_2", (3,))]
    assert [t.arg.parts[0][0] for t in program.terms] == ["x", "x_2"]
    assert [o.name for o in program.outputs] == ["x", "x_2"]


def test_unknowns_of_the_compiler_keep_clear_of_the_users_names() -> None:
    x, odd = cp.Variable(3, name="x"), cp.Variable(3, name="@s1")
    program = read(cp.Problem(cp.Minimize(cp.exp(cp.norm(x) + cp.norm1(odd))))).program
    found = [v.name for v in program.variables]
    assert found[:2] == ["x", "@s1"]
    assert len(set(found)) == len(found) > 3


def test_plain_problem_reads_with_listed_parameters() -> None:
    A, b = cp.Parameter((4, 3), name="A"), cp.Parameter(4, name="b")
    x = cp.Variable(3, name="x")
    program = read(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0]), inputs=[A, b]).program
    assert [t.atom for t in program.terms] == ["square", "box"]
