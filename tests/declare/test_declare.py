"""Input and Weight: CVXPY parameters with our promises."""

import copy
import os
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import opteq_cvx
from opteq_cvx.declare import Input, Weight, leaf_of
from opteq_cvx.declare.parameter import ATTRIBUTES
from opteq_cvx.errors import CompileError, InputError
from opteq_cvx.ir.param import Stage
from opteq_cvx.weights import WeightStore, WeightWarning

PATTERN = ([0, 1, 2], [1, 2, 0])
KINDS = {
    "free": ((4, 3), {}),
    "scalar": ((), {}),
    "vector": (5, {}),
    "kernel": ((2, 3, 3, 3), {"norm": 0.9}),
    "nonneg": ((), {"nonneg": True}),
    "pos": ((2,), {"pos": True}),
    "nonpos": ((2,), {"nonpos": True}),
    "neg": ((2,), {"neg": True}),
    "box": ((2, 2), {"bounds": [-1, np.array([[1.0, 2.0], [3.0, 4.0]])]}),
    "half": ((2,), {"bounds": [None, 3]}),
    "symmetric": ((3, 3), {"symmetric": True}),
    "psd": ((3, 3), {"PSD": True}),
    "nsd": ((3, 3), {"NSD": True}),
    "diag": ((3, 3), {"diag": True}),
    "sparsity": ((3, 3), {"sparsity": PATTERN}),
    "norm": ((6, 3), {"norm": 0.95}),
    "norm_psd": ((3, 3), {"norm": 0.95, "PSD": True}),
    "orthogonal": ((3, 3), {"orthogonal": True}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_has_a_value_that_cvxpy_accepts_and_the_store_keeps(kind: str) -> None:
    shape, attributes = KINDS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        w = Weight(shape, name="w", **attributes)
        value = w.value
        assert isinstance(value, np.ndarray)
        assert value.dtype == np.float64
        assert value.shape == w.shape
        w.value = value
        leaf = leaf_of(w, Stage.WEIGHT)
        store = WeightStore((leaf,), {"w": value}, dtype=torch.float64)
        np.testing.assert_allclose(store.numpy("w"), value, atol=1e-12)
        w.value = store.numpy("w")
        plain = {k: v for k, v in attributes.items() if k not in ("norm", "orthogonal")}
        if kind != "sparsity":
            cp.Parameter(shape, **plain).value = value


@pytest.mark.parametrize("kind", ["free", "psd", "diag", "sparsity", "symmetric", "box"])
def test_the_problem_solves_before_any_training(kind: str) -> None:
    shape, attributes = KINDS[kind]
    W = Weight(shape, name="W", **attributes)
    x = cp.Variable(shape[1])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - W.value.sum(axis=0)) + cp.sum(W @ x)))
    problem.solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(x.value, 0.5 * W.value.sum(axis=0), atol=1e-6)


def test_random_starts_follow_torchs_seed() -> None:
    torch.manual_seed(3)
    one = Weight((3, 2)).value
    torch.manual_seed(3)
    np.testing.assert_array_equal(one, Weight((3, 2)).value)
    np.testing.assert_array_equal(Weight(4, seed=7).value, Weight(4, seed=7).value)
    generator = torch.Generator().manual_seed(7)
    np.testing.assert_array_equal(Weight(4, generator=generator).value, Weight(4, seed=7).value)
    with pytest.raises(InputError, match="seed and generator"):
        Weight(4, seed=1, generator=generator)


def test_random_starts_are_scaled() -> None:
    assert Weight((50, 400), seed=0).value.std() == pytest.approx(400**-0.5, rel=0.05)
    assert 0.3 < np.linalg.norm(Weight((40, 60), norm=2.0, seed=0).value, 2) < 2.0
    box = Weight(1000, bounds=[2.0, 4.0], seed=0).value
    assert box.min() >= 2.5
    assert box.max() <= 3.5


@pytest.mark.parametrize(
    "init",
    [
        2.5,
        np.full((2, 3), 2.5),
        [[2.5] * 3] * 2,
        torch.full((2, 3), 2.5),
        lambda s: np.full(s, 2.5),
        lambda s: torch.full(s, 2.5),
    ],
)
def test_every_kind_of_init(init: object) -> None:
    np.testing.assert_array_equal(Weight((2, 3), init=init).value, np.full((2, 3), 2.5))


def test_an_init_is_copied() -> None:
    array = np.ones(3)
    w = Weight(3, init=array)
    array[0] = 9.0
    assert w.value[0] == 1.0


def test_projected_and_moved_inits_warn() -> None:
    with pytest.warns(WeightWarning, match=r'Weight "W" \(norm=0.5\).*outside'):
        W = Weight((2, 2), name="W", norm=0.5, init=np.eye(2))
    assert np.linalg.norm(W.value, 2) < 0.5
    with pytest.warns(WeightWarning, match=r'Weight "lam" \(nonneg\).*boundary'):
        lam = Weight(name="lam", nonneg=True, init=0)
    assert 0 < lam.value < 1e-3


def test_warnings_point_at_the_users_line(tmp_path: Path) -> None:
    script = tmp_path / "user.py"
    script.write_text("from opteq_cvx.declare import Weight\nWeight((2, 2), norm=0.5, init=3.0)\n")
    root = Path(opteq_cvx.__file__).parents[1]
    run = subprocess.run(
        [sys.executable, script],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{script}:2: WeightWarning" in run.stderr


@pytest.mark.parametrize(
    ("attributes", "value"),
    [
        ({"nonneg": True}, [[-1.0, 0.0], [0.0, 1.0]]),
        ({"symmetric": True}, [[0.0, 1.0], [0.0, 0.0]]),
        ({"diag": True}, [[0.0, 1.0], [0.0, 0.0]]),
        ({"sparsity": ([0], [0])}, [[0.0, 1.0], [0.0, 0.0]]),
        ({"norm": 0.5}, [[0.6, 0.0], [0.0, 0.0]]),
        ({"norm": 0.5, "nonneg": True}, [[0.6, 0.0], [0.0, 0.0]]),
        ({"orthogonal": True}, [[0.6, 0.0], [0.0, 1.0]]),
        ({}, [[np.nan, 0.0], [0.0, 1.0]]),
        ({}, [1.0, 2.0]),
    ],
)
def test_assigning_a_value_without_the_attributes_raises(attributes: dict[str, object], value: object) -> None:
    w = Weight((2, 2), name="w", **attributes)
    before = w.value.copy()
    with pytest.raises(InputError, match=r'Weight "w".*Fix: '):
        w.value = value
    np.testing.assert_array_equal(w.value, before)


def test_assigning_boundary_and_sparse_values_is_allowed() -> None:
    lam = Weight(2, name="lam", nonneg=True)
    lam.value = [0.0, 1.0]
    np.testing.assert_array_equal(lam.value, [0.0, 1.0])
    s = Weight((3, 3), name="s", sparsity=PATTERN)
    s.value = sp.coo_array(([1.0, 2.0, 3.0], PATTERN), shape=(3, 3))
    assert s.value[1, 2] == 2.0
    np.testing.assert_array_equal(s.value_sparse.toarray(), s.value)


def test_leaf_carries_the_attributes() -> None:
    leaf = leaf_of(Weight((3, 3), name="W", norm=0.5, symmetric=True), Stage.WEIGHT)
    assert (leaf.name, leaf.shape, leaf.stage) == ("W", (3, 3), Stage.WEIGHT)
    assert dict(leaf.attributes) == {"symmetric": True, "norm": 0.5}
    box = leaf_of(Input(3, bounds=[0, np.ones(3)]), Stage.INPUT, name="renamed")
    assert box.name == "renamed"
    assert box.attributes["bounds"][0] == 0.0
    np.testing.assert_array_equal(box.attributes["bounds"][1], np.ones(3))
    sparse = leaf_of(Weight((3, 3), sparsity=PATTERN), Stage.WEIGHT).attributes["sparsity"]
    assert [i.tolist() for i in sparse] == [[0, 1, 2], [1, 2, 0]]
    assert dict(leaf_of(Input(2, integer=True), Stage.INPUT).attributes) == {"integer": True}
    assert dict(leaf_of(cp.Parameter(2, pos=True), Stage.INPUT).attributes) == {"pos": True}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Weight(2, integer=True), "integer"),
        (lambda: Weight(2, boolean=True), "boolean"),
        (lambda: Weight(2, norm=1.0), "a matrix"),
        (lambda: Weight((2, 2), norm=0.0), "positive"),
        (lambda: Weight((2, 2), norm=-1), "positive"),
        (lambda: Weight((2, 2), PSD=True, nonneg=True), "together"),
        (lambda: Weight((2, 2), complex=True), "real"),
        (lambda: Weight(2, nonnegative=True), "write nonneg="),
        (lambda: Weight(2, value=1.0), "init="),
        (lambda: Weight(2, name=""), "non-empty"),
        (lambda: Weight((2, 3), symmetric=True), "square"),
        (lambda: Input((2, 2), hermitian=True), "real"),
        (lambda: Input(2, name=""), "non-empty"),
        (lambda: Input(2, wat=True), "unknown attribute"),
        (lambda: Input(-1), "Invalid dimensions"),
        (lambda: Weight((2, 2), bounds=[0, 1], norm=0.5), "norm and bounds"),
    ],
)
def test_refusals(make: object, words: str) -> None:
    with pytest.raises(CompileError, match="Fix: ") as caught:
        make()
    assert words in str(caught.value)


@pytest.mark.parametrize("init", [np.ones(3), [np.inf, 0.0], "text", lambda shape: np.ones(5)])
def test_bad_inits(init: object) -> None:
    with pytest.raises(InputError, match='Weight "w"'):
        Weight(2, name="w", init=init)


def test_a_weight_may_lose_its_value() -> None:
    w = Weight((2, 2), name="w", norm=0.9)
    w.value = None
    assert w.value is None


def test_entries_may_be_boolean_or_integer_by_index() -> None:
    x = Input((2, 3), name="x", boolean=[(0, 2), (1, 0)], integer=True)
    found = leaf_of(x, Stage.INPUT).attributes
    assert [tuple(int(n) for n in i) for i in found["boolean"]] == [(0, 2), (1, 0)]
    assert found["integer"] is True


def test_known_attributes_are_cvxpys() -> None:
    assert set(ATTRIBUTES) == {*cp.Variable(2).attributes, "value"}


def test_deepcopy_keeps_norm_and_value() -> None:
    W = Weight((2, 2), name="W", norm=0.5)
    twin = copy.deepcopy(W)
    assert isinstance(twin, Weight)
    assert twin.norm == 0.5
    assert twin.orthogonal is False
    np.testing.assert_array_equal(twin.value, W.value)


def test_names_are_keyword_only_and_shapes_may_be_integers() -> None:
    assert Input(3).shape == (3,)
    assert Input(np.int64(3), name="x").name() == "x"
    with pytest.raises(TypeError):
        Weight(3, "w")


def test_a_large_weight_is_cheap() -> None:
    Weight((2, 2))
    tracemalloc.start()  # counts NumPy's memory: torch's is the array itself
    start = time.perf_counter()
    w = Weight((4000, 4000), name="W")
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 1.0
    assert peak < w.value.nbytes
