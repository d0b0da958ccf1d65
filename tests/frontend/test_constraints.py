"""Constraints and attributes become the sets they describe, on the right argument."""

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

import opteq_cvx as oc
from opteq_cvx.errors import CompileError, UnsupportedError
from opteq_cvx.frontend import read, recognized, variables
from opteq_cvx.ir import printer
from opteq_cvx.ir.program import Term
from tests.frontend import interpret

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _every_node_is_an_atom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognized, "recognize", interpret.recognize_all)
    monkeypatch.setattr(variables, "recognize", interpret.recognize_all)


def variable(name: str, *shape: int, **attributes: Any) -> cp.Variable:
    made = cp.Variable(shape, name=name, **attributes)
    made.save_value(RNG.standard_normal(shape))
    return made


def only(constraint: Any) -> tuple[Term, dict[str, np.ndarray]]:
    problem = cp.Problem(cp.Minimize(0), [constraint])
    program = read(problem).program
    (term,) = program.terms
    return term, {v.name(): np.asarray(v.value) for v in problem.variables()}


def cone_argument(constraint: Any) -> np.ndarray:
    term, values = only(constraint)
    return interpret.node(term.static["node"].args[0], values, {})


def test_soc_of_a_vector_joins_head_and_body() -> None:
    t, x = variable("t"), variable("x", 4)
    term, values = only(cp.SOC(t, x))
    assert term.static["node"].op == "soc"
    joined = interpret.node(term.static["node"].args[0], values, {})
    np.testing.assert_allclose(joined, np.append(t.value, x.value))


@pytest.mark.parametrize("axis", [0, 1])
def test_soc_of_a_matrix_is_one_row_for_each_cone(axis: int) -> None:
    X = variable("X", 3, 4)
    t = variable("t", 4 if axis == 0 else 3)
    rows = X.value.T if axis == 0 else X.value
    expected = np.concatenate([t.value[:, None], rows], axis=1)
    np.testing.assert_allclose(cone_argument(cp.SOC(t, X, axis=axis)), expected)


def test_exponential_cone_stacks_its_three_parts() -> None:
    x, y, z = (variable(n, 2, 3) for n in "xyz")
    expected = np.stack([x.value, y.value, z.value], axis=-1)
    np.testing.assert_allclose(cone_argument(cp.ExpCone(x, y, z)), expected)


def test_power_cone_has_its_exponent_as_data() -> None:
    x, y, z = (variable(n, 2) for n in "xyz")
    term, values = only(cp.PowCone3D(x, y, z, [0.3, 0.6]))
    node = term.static["node"]
    assert node.op == "pow_cone"
    expected = np.stack([x.value, y.value, z.value], axis=-1)
    np.testing.assert_allclose(interpret.node(node.args[0], values, {}), expected)
    np.testing.assert_allclose(interpret.param(node.args[1].param, {}), [[0.3], [0.6]])


@pytest.mark.parametrize("axis", [0, 1])
def test_long_power_cone_is_a_tree_of_cones_of_three(axis: int) -> None:
    W = variable("W", 3, 2) if axis == 0 else variable("W", 2, 3)
    z = variable("z", 2)
    alpha = np.array([[0.2, 0.5], [0.3, 0.3], [0.5, 0.2]])
    term, values = only(cp.PowConeND(W, z, alpha if axis == 0 else alpha.T, axis=axis))
    rows, u = (W.value.T if axis == 0 else W.value), np.array([[0.7], [0.4]])
    first = np.stack([rows[:, 0], u[:, 0], z.value], axis=-1)
    second = np.stack([rows[:, 1], rows[:, 2], u[:, 0]], axis=-1)
    argument = interpret.affine(term.arg, {**values, "@s1": u}, {})
    np.testing.assert_allclose(argument, np.stack([first, second], axis=1))
    shares = np.stack([alpha[0], alpha[1] / (alpha[1] + alpha[2])], axis=-1)
    assert term.atom == "pow_cone"
    np.testing.assert_allclose(interpret.param(term.data["alpha"], {}), shares[..., None])


def test_long_power_cone_of_one_factor_is_a_second_order_cone() -> None:
    w, z = variable("w", 1), variable("z")
    term, values = only(cp.PowConeND(w, z, np.array([1.0])))
    assert term.atom == "soc"
    np.testing.assert_allclose(interpret.affine(term.arg, values, {}), [w.value[0], z.value])


def test_psd_constrains_the_symmetric_part() -> None:
    X = variable("X", 3, 3)
    np.testing.assert_allclose(cone_argument(X >> np.eye(3)), (X.value + X.value.T) / 2 - np.eye(3))


def test_psd_of_a_symmetric_argument_is_taken_as_it_is() -> None:
    X = variable("X", 3, 3, symmetric=True)
    problem = cp.Problem(cp.Minimize(0), [X << 2 * np.eye(3)])
    program = read(problem).program
    (at,) = program.constraints[0].terms
    (part,) = program.terms[at].static["node"].args[0].affine.parts
    assert program.constraints[0].kind == "psd"
    assert not hasattr(part[1], "maps") or len(part[1].maps) == 1


@pytest.mark.parametrize(
    ("text", "lower", "upper"),
    [
        ("x >= 1", 1.0, np.inf),
        ("x <= [1, 2, 3]", -np.inf, [1.0, 2.0, 3.0]),
        ("0.5 <= x", 0.5, np.inf),
        ("-x <= 2", -2.0, np.inf),
        ("2 >= x", -np.inf, 2.0),
    ],
)
def test_plain_bound_is_a_box(text: str, lower: Any, upper: Any) -> None:
    x = variable("x", 3)
    term, _ = only(eval(text))
    assert term.atom == "box"
    np.testing.assert_array_equal(interpret.param(term.data["lower"], {}), np.broadcast_to(lower, 3))
    np.testing.assert_array_equal(interpret.param(term.data["upper"], {}), np.broadcast_to(upper, 3))
    assert x.name() == term.arg.parts[0][0]


def test_inequality_of_a_product_is_no_box() -> None:
    x = variable("x", 3)
    A = RNG.standard_normal((2, 3))
    assert only(A @ x <= 1)[0].atom == "nonpos"
    assert only(A @ x >= 1)[0].atom == "nonneg"
    assert only(x[[0, 0]] <= 1)[0].atom == "nonpos"  # one entry twice is no selection


def boxes(x: cp.Variable) -> list[tuple[np.ndarray, np.ndarray]]:
    program = read(cp.Problem(cp.Minimize(cp.sum_squares(x)))).program
    values = {p.name(): np.asarray(p.value) for p in (LOW, HIGH)}
    found = [t for t in program.terms if t.atom == "box"]
    return [tuple(interpret.param(t.data[k], values) for k in ("lower", "upper")) for t in found]


LOW = oc.Weight(3, name="low", nonpos=True, seed=0)
HIGH = oc.Weight(name="high", nonneg=True, seed=1)


@pytest.mark.parametrize(
    ("attributes", "lower", "upper"),
    [
        ({"nonneg": True}, 0.0, np.inf),
        ({"pos": True}, 0.0, np.inf),
        ({"nonpos": True}, -np.inf, 0.0),
        ({"bounds": [-1, 2]}, -1.0, 2.0),
        ({"bounds": [None, np.array([1.0, 2, 3])]}, -np.inf, [1.0, 2, 3]),
        ({"bounds": [-1, 2], "nonneg": True}, 0.0, 2.0),
        ({"bounds": [LOW, HIGH]}, LOW.value, HIGH.value),
        ({"bounds": [LOW, HIGH], "nonneg": True}, np.maximum(LOW.value, 0), HIGH.value),
    ],
)
def test_sign_and_bounds_are_one_box(attributes: dict[str, Any], lower: Any, upper: Any) -> None:
    ((low, high),) = boxes(cp.Variable(3, name="x", **attributes))
    np.testing.assert_array_equal(low, np.broadcast_to(lower, 3))
    np.testing.assert_array_equal(high, np.broadcast_to(upper, 3))


def test_a_bound_by_a_parameter_alone_is_that_parameter() -> None:
    """No maximum with −∞, no minimum with ∞ is left to be evaluated at each call."""
    x = cp.Variable(3, name="x", bounds=[LOW, HIGH])
    term = read(cp.Problem(cp.Minimize(cp.sum_squares(x)))).program.terms[-1]
    assert [printer.param(term.data[k]) for k in ("lower", "upper")] == ["low", "high"]


def test_diagonal_variable_has_its_diagonal_as_unknown() -> None:
    X = cp.Variable((3, 3), name="X", diag=True)
    program = read(cp.Problem(cp.Minimize(cp.trace(X)), [X >= -1])).program
    assert program.variables[0].shape == (3,)
    d = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(interpret.affine(program.outputs[0].value, {"X": d}, {}), np.diag(d))


def test_sparse_variable_has_its_entries_as_unknown() -> None:
    X = cp.Variable((2, 3), name="X", sparsity=[(0, 1), (2, 0)], bounds=[-1, 4])
    program = read(cp.Problem(cp.Minimize(cp.sum(X)))).program
    assert program.variables[0].shape == (2,)
    value = interpret.affine(program.outputs[0].value, {"X": np.array([5.0, 7.0])}, {})
    assert sorted(zip(*np.nonzero(value), strict=True)) == [(0, 2), (1, 0)]


def test_sparse_bounds_are_read_at_the_free_entries() -> None:
    high = sp.coo_array(([5.0, 7.0], ([0, 1], [2, 0])), shape=(2, 3))
    X = cp.Variable((2, 3), name="X", sparsity=[(0, 1), (2, 0)], bounds=[-1, high])
    program = read(cp.Problem(cp.Minimize(cp.sum(X)))).program
    upper = interpret.param(program.terms[-1].data["upper"], {})
    np.testing.assert_array_equal(interpret.affine(program.outputs[0].value, {"X": upper}, {}), high.toarray())


@pytest.mark.parametrize(
    ("attribute", "op", "sign"), [("PSD", "psd", 1), ("NSD", "psd", -1), ("symmetric", "symmetric", 1)]
)
def test_matrix_attributes_are_sets(attribute: str, op: str, sign: int) -> None:
    X = cp.Variable((3, 3), name="X", **{attribute: True})
    program = read(cp.Problem(cp.Minimize(cp.sum_squares(X)))).program
    node = program.terms[-1].static["node"]
    value = RNG.standard_normal((3, 3))
    assert node.op == op
    np.testing.assert_allclose(interpret.node(node.args[0], {"X": value}, {}), sign * value)


def test_symmetry_without_its_atom_is_an_equality(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variables, "recognize", lambda node: None)
    X = cp.Variable((3, 3), name="X", symmetric=True)
    term = read(cp.Problem(cp.Minimize(cp.sum(X)))).program.terms[-1]
    value = RNG.standard_normal((3, 3))
    expected = (value - value.T)[np.triu_indices(3, 1)]
    assert term.atom == "zero"
    np.testing.assert_allclose(interpret.affine(term.arg, {"X": value}, {}), expected)


@pytest.mark.parametrize("attribute", ["boolean", "integer"])
def test_discrete_variables_are_refused(attribute: str) -> None:
    X = cp.Variable((2, 2), name="X", **{attribute: True})
    with pytest.raises(UnsupportedError, match=f"variable 'X' is declared {attribute}.*Fix: "):
        read(cp.Problem(cp.Minimize(cp.sum(cp.real(X)))))


def test_each_constraint_knows_its_terms() -> None:
    x = cp.Variable(3, name="x", nonneg=True)
    program = read(cp.Problem(cp.Minimize(cp.sum_squares(x)), [cp.sum(x) == 1, True, x <= 2])).program
    assert [(c.kind, c.terms) for c in program.constraints] == [
        ("equality", (1,)),
        ("inequality", ()),
        ("inequality", (2,)),
    ]
    assert program.terms[2].origin.where == "constraint[2]"
    assert program.terms[3].origin.where == "variable x"


def test_false_constraint_is_refused() -> None:
    with pytest.raises(CompileError, match=r"constraint\[0\].*is false"):
        read(cp.Problem(cp.Minimize(cp.Variable()), [False]))


def test_constraint_of_parameters_is_refused_with_the_attribute_to_use() -> None:
    lam = oc.Weight(name="lam")
    with pytest.raises(CompileError, match=r"parameters only.*nonneg=True"):
        read(cp.Problem(cp.Minimize(cp.Variable()), [lam >= 0]))


def test_finite_set_is_refused() -> None:
    x = cp.Variable(3)
    with pytest.raises(UnsupportedError, match=r"constraint\[0\].*FiniteSet"):
        read(cp.Problem(cp.Minimize(cp.sum(x)), [cp.FiniteSet(x, [1, 2])]))
