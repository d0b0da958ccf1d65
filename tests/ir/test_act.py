"""Maps acting on parameter expressions agree with their NumPy meaning, and fold what they can."""

import numpy as np
import pytest
import scipy.sparse as sp

from opteq_cvx.ir import act, meaning, printer
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.linmap import (
    Adjoint,
    Broadcast,
    Diagonal,
    Gather,
    Identity,
    Kron,
    LeftMul,
    LinearMap,
    Permute,
    Reshape,
    RightMul,
    Sparse,
    Sum,
    SumMap,
    Zero,
    compose,
    gather,
)
from opteq_cvx.ir.param import Apply, Const, Leaf, Stage, const
from tests.frontend import interpret

RNG = np.random.default_rng(0)
A, B, D, K, V = (
    Leaf(n, s, Stage.WEIGHT) for n, s in [("A", (2, 3)), ("B", (4, 2)), ("D", (4,)), ("K", (2, 2)), ("V", (3, 4))]
)
VALUES = {leaf.name: RNG.standard_normal(leaf.shape) for leaf in (A, B, D, K, V)}
X = (3, 4)
PICK = np.array([[0, 5], [11, 3]])
TWICE = np.array([0, 0, -1, 7])
MAPS: tuple[LinearMap, ...] = (
    Identity(X),
    Zero(X, (2,)),
    Diagonal(D, X),
    LeftMul(A, X),
    RightMul(B, X),
    Gather(PICK, X),
    Gather(TWICE, X),
    Reshape(X, (2, 6), "F"),
    Reshape(X, (12,), "C"),
    Permute((1, 0), X),
    Sum((0,), X),
    Sum((0, 1), X),
    Sum((1,), X, True),
    Broadcast(X, (2, 3, 4)),
    Sparse(sp.csr_array(np.eye(12)[[0, 3, 3]] * 2), X, (3,)),
    compose(Sum((0,), (2, 4)), LeftMul(A, X)),
    SumMap((Diagonal(D, X), Identity(X))),
    Adjoint(LeftMul(A, (3, 4))),
    Kron(K, X, "left"),
    Kron(K, X, "right"),
)


def value(expr: object) -> np.ndarray:
    return interpret.param(expr, VALUES)  # type: ignore[arg-type]


@pytest.mark.parametrize("m", MAPS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("constant", [True, False])
def test_apply_and_adjoint_are_their_meaning(m: LinearMap, constant: bool) -> None:
    x, y = RNG.standard_normal(m.shape_in), RNG.standard_normal(m.shape_out)
    p, q = Leaf("p", m.shape_in, Stage.INPUT), Leaf("q", m.shape_out, Stage.INPUT)
    values = {**VALUES, "p": x, "q": y}
    forward = act.apply(m, const(x) if constant else p)
    backward = act.adjoint(m, const(y) if constant else q)
    expected = meaning.apply(m, x, value), meaning.adjoint(m, y, value)
    assert (forward.shape, backward.shape) == (m.shape_out, m.shape_in)
    np.testing.assert_allclose(interpret.param(forward, values), expected[0], atol=1e-12)
    np.testing.assert_allclose(interpret.param(backward, values), expected[1], atol=1e-12)


@pytest.mark.parametrize("m", MAPS, ids=lambda m: type(m).__name__)
def test_meaning_has_its_own_adjoint(m: LinearMap) -> None:
    x, y = RNG.standard_normal(m.shape_in), RNG.standard_normal(m.shape_out)
    left = np.vdot(meaning.apply(m, x, value), y)
    assert left == pytest.approx(np.vdot(x, meaning.adjoint(m, y, value)), abs=1e-12)


@pytest.mark.parametrize("m", MAPS, ids=lambda m: type(m).__name__)
def test_uniform_weights_stay_scalars_where_they_may(m: LinearMap) -> None:
    w = Leaf("w", (), Stage.WEIGHT)
    factor = act.uniform(m, w)
    expected = meaning.adjoint(m, np.full(m.shape_out, 0.7), value)
    if factor is not None:
        np.testing.assert_allclose(np.full(m.shape_in, interpret.param(factor, {**VALUES, "w": 0.7})), expected)


def test_constants_take_no_memory_when_they_repeat() -> None:
    wide = act.spread(const(2.0), (1000, 1000))
    assert isinstance(wide, Const)
    assert wide.dense().strides == (0, 0)
    assert act.zeros((5, 5)).dense().strides == (0, 0)


def test_double_transpose_disappears() -> None:
    assert act.transpose(act.transpose(A)) is A


def test_stack_of_gathers_is_one_gather() -> None:
    x = aff.of_variable("x", (6,))
    entries = [aff.image(gather(np.array([i]), (6,)), x) for i in (4, 0, 2)]
    ((_, m),) = aff.join(entries).parts
    assert isinstance(m, Gather)
    assert m.index.tolist() == [4, 0, 2]


def test_join_and_stack_are_numpys() -> None:
    x, y = aff.of_variable("x", (2, 3)), aff.of_variable("y", (2, 3))
    values = {"x": RNG.standard_normal((2, 3)), "y": RNG.standard_normal((2, 3))}
    joined = interpret.affine(aff.join([x, y]), values, {})
    stacked = interpret.affine(aff.stack([x, y]), values, {})
    np.testing.assert_array_equal(joined, np.concatenate([values["x"], values["y"]], axis=-1))
    np.testing.assert_array_equal(stacked, np.stack([values["x"], values["y"]], axis=-1))


def test_stage_of_a_pushed_weight_covers_the_map() -> None:
    pushed = act.adjoint(Kron(K, X), const(np.ones((6, 8))))
    assert isinstance(pushed, Apply)
    assert pushed.stage is Stage.WEIGHT
    assert printer.param(pushed) == "adjoint[kron(K, ·)](1)"
