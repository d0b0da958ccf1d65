"""What the engine relies on: maps stay structured, and nothing large is copied."""

import time
import tracemalloc

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

import opteq_cvx as oc
from opteq_cvx.frontend import affine_fallback, read
from opteq_cvx.frontend.affine import affine
from opteq_cvx.frontend.hoist import hoist
from opteq_cvx.frontend.scope import Scope
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir import meaning, printer
from opteq_cvx.ir.linmap import Broadcast, Diagonal, Gather, Identity, LeftMul, Sparse, Sum
from opteq_cvx.ir.param import Apply, Const, Leaf, Stage
from tests.frontend import interpret

LARGE = 4000
SECONDS = 1.0  # of this process; measured 0.1: the bound tells a scan from a factorization or a dense copy too many


def scope(*leaves: cp.Expression) -> Scope:
    """A scope of the given variables and parameters."""
    params = {id(p): Leaf(p.name(), p.shape, Stage.WEIGHT) for p in leaves if isinstance(p, cp.Parameter)}
    variables = {id(v): aff.of_variable(v.name(), v.shape) for v in leaves if isinstance(v, cp.Variable)}
    return Scope(params, variables)


def map_of(expr: cp.Expression, x: cp.Variable, *parameters: cp.Parameter) -> object:
    (part,) = affine(expr, scope(x, *parameters)).parts
    return part[1]


def test_products_keep_their_structure() -> None:
    x, X = cp.Variable(4, name="x"), cp.Variable((4, 3), name="X")
    A, d, s = cp.Parameter((5, 4), name="A"), cp.Parameter(4, name="d"), cp.Parameter(name="s")
    assert isinstance(map_of(A @ x, x, A), LeftMul)
    assert isinstance(map_of(cp.multiply(d, x), x, d), Diagonal)
    assert map_of(s * x, x, s).d.shape == ()  # type: ignore[attr-defined]
    assert map_of(cp.multiply(np.full(4, 2.0), x), x).d.shape == ()  # type: ignore[attr-defined]
    assert isinstance(map_of(np.eye(4) @ x, x), Identity)
    assert isinstance(map_of(np.diag([1.0, 2, 3, 4]) @ X, X), Diagonal)
    assert isinstance(map_of(cp.psd_wrap(cp.diag(x)), x), Gather)
    assert isinstance(map_of(cp.sum(X, axis=0), X), Sum)


def test_broadcast_of_a_column_is_no_matrix_product() -> None:
    x, Y = cp.Variable((4, 1), name="x"), cp.Variable((4, 3), name="Y")
    parts = dict(affine(x + Y, scope(x, Y)).parts)
    assert isinstance(parts["x"], Broadcast)


def test_stack_of_entries_is_one_gather() -> None:
    x = cp.Variable(6, name="x")
    found = map_of(cp.hstack([x[i] for i in (3, 1, 5)]), x)
    assert isinstance(found, Gather)
    assert found.index.tolist() == [3, 1, 5]


def test_parameters_are_hoisted_from_a_product_of_parameters() -> None:
    U, z, x = oc.Weight((3, 4), name="U", seed=0), oc.Input(4, name="z"), cp.Variable(3, name="x")
    program = read(cp.Problem(cp.Minimize(cp.sum_squares(x - U @ z)))).program
    offset = program.terms[0].arg.offset
    assert printer.param(offset) == "-U @ z"
    assert offset.stage is Stage.INPUT


@pytest.mark.parametrize("text", ["s * A", "A * s", "A / 2 * s"])
def test_a_factor_of_a_matrix_of_parameters_stays_one_number(text: str) -> None:
    A, s = cp.Parameter((5, 4), name="A"), cp.Parameter(name="s")
    found = hoist(eval(text), scope(A, s))
    assert isinstance(found, Apply)
    assert sorted(a.shape for a in found.args) == [(), (5, 4)]


def test_sparse_constants_stay_sparse() -> None:
    x = cp.Variable(50, name="x")
    found = map_of(sp.random_array((40, 50), density=0.05, rng=0) @ x, x)
    assert isinstance(found, LeftMul)
    assert isinstance(found.a, Const)
    assert found.a.sparse


@pytest.mark.parametrize(("entries", "sparse"), [(np.arange(256), True), (np.arange(1310), False)])
def test_large_constants_are_stored_sparse_where_nearly_all_is_zero(entries: np.ndarray, sparse: bool) -> None:
    """256×256 is the size, and one entry in a hundred the density, from which on it is worth it."""
    value = np.zeros((256, 256))
    value.flat[1 + 50 * entries] = 1.0 + entries
    found = hoist(cp.Constant(value), scope())
    assert isinstance(found, Const)
    assert found.sparse is sparse
    np.testing.assert_array_equal(found.dense(), value)
    assert not hoist(cp.Constant(value[:, :255]), scope()).sparse  # type: ignore[union-attr]
    assert hoist(cp.Constant(np.diag(1.0 + np.arange(256.0))), scope()).sparse  # type: ignore[union-attr]


def test_constants_are_snapshots_without_a_second_copy() -> None:
    value = np.ones((3, 4))
    constant = cp.Constant(value)
    hoisted = hoist(constant, scope())
    assert isinstance(hoisted, Const)
    assert np.shares_memory(hoisted.dense(), constant.value)
    assert not np.shares_memory(hoisted.dense(), value)


def test_large_weight_is_read_without_copies() -> None:
    W = oc.Weight((LARGE, LARGE), name="W", init=0.0)
    u = cp.Variable(LARGE, name="u")
    problem = cp.Problem(cp.Minimize(cp.quad_form(u, cp.psd_wrap(np.eye(LARGE) - W @ W.T))))
    read(cp.Problem(cp.Minimize(cp.sum_squares(cp.Variable(2)))))  # imports, tables
    start = time.process_time()
    program = read(problem).program
    assert time.process_time() - start < SECONDS
    assert printer.param(program.terms[0].data["P"]) == f"I[{LARGE}] - W @ W.T"
    tracemalloc.start()
    read(problem)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    one = 8 * LARGE * LARGE
    assert peak < 1.5 * one  # the weight's initial value, and nothing else of that size


class Roll(cp.atoms.affine.affine_atom.AffAtom):
    """A user's own affine atom: each entry moves one place on."""

    def numeric(self, values: list[np.ndarray]) -> np.ndarray:
        return np.roll(values[0], 1)

    def shape_from_args(self) -> tuple[int, ...]:
        return self.args[0].shape

    def graph_implementation(self, arg_objs: list, shape: tuple, data: object = None) -> tuple:
        n = shape[0]
        matrix = cp.Constant(np.roll(np.eye(n), 1, axis=0)).canonical_form[0]
        return cp.lin_ops.lin_utils.mul_expr(matrix, arg_objs[0], shape), []


def test_affine_atom_of_the_user_goes_through_extraction() -> None:
    x = cp.Variable(4, name="x")
    x.value = np.arange(4.0)
    found = map_of(Roll(x), x)
    assert isinstance(found, Sparse)
    np.testing.assert_allclose(meaning.apply(found, x.value), Roll(x).value)


@pytest.mark.parametrize("order", ["left", "right"])
def test_parametric_extraction_is_bilinear(order: str) -> None:
    x, K = cp.Variable((2, 3), name="x"), cp.Parameter((2, 2), name="K")
    x.value, K.value = np.random.default_rng(0).random((2, 3)), np.random.default_rng(1).random((2, 2))
    expr = cp.kron(K, x) if order == "left" else cp.kron(x, K)
    ((at, found),) = affine_fallback.extracted(expr, scope(x, K))
    out = meaning.apply(found, x.value, lambda p: interpret.param(p, {"K": K.value}))
    assert expr.args[at] is x
    np.testing.assert_allclose(out, expr.value)
    assert all(isinstance(c, Apply) for c in (found.maps[-2].d,))


def test_expressions_are_shared_not_repeated() -> None:
    W, x, y = oc.Weight((3, 3), name="W", seed=0), cp.Variable(3, name="x"), cp.Variable(3, name="y")
    gram = W.T @ W
    program = read(cp.Problem(cp.Minimize(cp.sum_squares(gram @ x) + cp.norm1(gram @ y)))).program
    first, second = (t.arg.parts[0][1].a for t in program.terms)
    assert first is second
