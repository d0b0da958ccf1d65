"""WeightStore: attributes at every step, round trips, gradients, names, copies, dtypes."""

import copy
import pickle
import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opteq_cvx.errors import CompileError, InputError, OpteqError
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.param import Leaf, Stage
from opteq_cvx.weights import WeightStore, WeightWarning
from opteq_cvx.weights.composite import composite
from opteq_cvx.weights.draw import draw
from opteq_cvx.weights.keys import safe_key
from tests.weights.cases import CASES, EPS, Case

by_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
by_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def make(case: Case, dtype: torch.dtype = torch.float64, seed: int = 0) -> WeightStore:
    start = draw(case.leaf, composite(case.leaf), torch.Generator().manual_seed(seed))
    return WeightStore((case.leaf,), {case.name: start.numpy()}, dtype=dtype)


def leaf(name: str, shape: tuple[int, ...] = (), **attributes: object) -> Leaf:
    return Leaf(name, shape, Stage.WEIGHT, FrozenDict(attributes))


@by_dtype
@by_case
def test_attribute_holds_at_every_step_under_large_updates(case: Case, dtype: torch.dtype) -> None:
    store = make(case, dtype)
    generator = torch.Generator().manual_seed(1)
    eps = EPS[str(dtype).removeprefix("torch.")]
    for step in range(60):
        optimizer = torch.optim.SGD(store.parameters(), lr=10.0 ** (step % 7 - 2))
        direction = torch.randn(case.shape, dtype=dtype, generator=generator)
        raw = store.raw(case.name)
        (store[case.name] * direction).sum().backward()
        assert raw.grad is not None
        # Dead gradients do not stop the walk.
        raw.grad += torch.randn(raw.shape, dtype=dtype, generator=generator)
        if raw.ndim == 2 and step % 3 == 0:
            raw.grad[1:] = raw.grad[:1]  # rank one: what breaks a Cholesky factorization of I + AᵀA
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            raw.clamp_(-1e8, 1e8)  # LLᵀ grows geometrically under such steps, and would overflow float32
        value = store[case.name]
        assert value.shape == case.shape
        assert value.dtype == dtype
        assert bool(torch.isfinite(value).all())
        assert case.check(value.detach().numpy().astype(np.float64), eps), f"step {step}"
        assert case.check(store.numpy(case.name), EPS["float64"]), f"float64 view at step {step}"


@by_dtype
@by_case
def test_round_trip(case: Case, dtype: torch.dtype) -> None:
    store, other = make(case, dtype), make(case, dtype, seed=1)
    target = other.numpy(case.name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.set(case.name, target)
    tolerance = 1e-12 if dtype == torch.float64 else 3e-6
    np.testing.assert_allclose(store[case.name].detach().numpy(), target, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(store.numpy(case.name), target, rtol=tolerance, atol=tolerance)


@by_case
def test_gradcheck_in_the_raw_parameter(case: Case) -> None:
    store = make(case)
    part = composite(case.leaf)
    if part is None:
        return
    raw = store.raw(case.name).detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(part, (raw,), atol=1e-6)
    assert torch.autograd.gradgradcheck(part, (raw,), atol=1e-5)


@by_case
def test_value_passes_cvxpys_own_validation(case: Case) -> None:
    attributes = {k: v for k, v in case.attributes.items() if k not in ("norm", "orthogonal")}
    for dtype in (torch.float64, torch.float32):
        store = make(case, dtype)
        with torch.no_grad():
            store.raw(case.name).mul_(50.0)
        value = store.numpy(case.name)
        parameter = cp.Parameter(case.shape, **{k: list(v) if k == "bounds" else v for k, v in attributes.items()})
        if attributes.keys() == {"sparsity"}:
            with pytest.warns(RuntimeWarning):  # CVXPY's own, about dense access
                parameter.value = value
        else:
            parameter.value = value


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e8])
def test_large_and_singular_psd_passes_cvxpys_absolute_tolerance(scale: float) -> None:
    store = WeightStore((leaf("S", (6, 6), PSD=True),), {"S": np.eye(6)}, dtype=torch.float32)
    with torch.no_grad():
        store.raw("S").copy_(scale * torch.outer(torch.randn(6), torch.randn(6)))
    cp.Parameter((6, 6), PSD=True).value = store.numpy("S")


SHAPES = st.one_of(
    st.just(()), st.tuples(st.integers(1, 4)), st.tuples(st.just(1), st.integers(1, 5)),
    st.tuples(st.integers(1, 5), st.just(1)), st.tuples(st.integers(1, 4), st.integers(1, 4)),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    shape=SHAPES,
    kind=st.sampled_from(["nonneg", "neg", "bounds", "norm", "orthogonal", "nonneg_norm"]),
    seed=st.integers(0, 99),
)
def test_shapes(shape: tuple[int, ...], kind: str, seed: int) -> None:
    attributes = {
        "nonneg": {"nonneg": True},
        "neg": {"neg": True},
        "bounds": {"bounds": (-1.0, 1.0)},
        "norm": {"norm": 0.9},
        "orthogonal": {"orthogonal": True},
        "nonneg_norm": {"nonneg": True, "norm": 0.9},
    }[kind]
    if len(shape) < 2 and kind in ("norm", "orthogonal", "nonneg_norm"):
        with pytest.raises(CompileError, match="a matrix"):
            composite(leaf("w", shape, **attributes))
        return
    w = leaf("w", shape, **attributes)
    start = draw(w, composite(w), torch.Generator().manual_seed(seed)).numpy()
    store = WeightStore((w,), {"w": start}, dtype=torch.float64)
    np.testing.assert_allclose(store.numpy("w"), start, atol=1e-12)
    assert store["w"].shape == shape
    if kind in ("norm", "nonneg_norm"):
        assert np.linalg.norm(start, 2) < 0.9


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 5),
    kind=st.sampled_from(["symmetric", "PSD", "NSD", "diag"]),
    norm=st.booleans(),
    seed=st.integers(0, 99),
)
def test_square_shapes(n: int, kind: str, norm: bool, seed: int) -> None:
    w = leaf("w", (n, n), **{kind: True}, **({"norm": 0.7} if norm else {}))
    start = draw(w, composite(w), torch.Generator().manual_seed(seed)).numpy()
    store = WeightStore((w,), {"w": start}, dtype=torch.float64)
    np.testing.assert_allclose(store.numpy("w"), start, atol=1e-12)


PROJECTED = [
    ({"nonneg": True}, (3,), [-1.0, 2.0, 3.0], "outside"),
    ({"nonneg": True}, (), 0.0, "boundary"),
    ({"pos": True}, (2,), [0.0, 1.0], "boundary"),
    ({"bounds": (0.0, 1.0)}, (2,), [0.0, 0.5], "boundary"),
    ({"bounds": (0.0, 1.0)}, (2,), [3.0, 0.5], "outside"),
    ({"symmetric": True}, (2, 2), [[0.0, 1.0], [0.0, 0.0]], "outside"),
    ({"PSD": True}, (2, 2), [[1.0, 0.0], [0.0, -1.0]], "outside"),
    ({"PSD": True}, (2, 2), [[0.0, 0.0], [0.0, 0.0]], "boundary"),
    ({"PSD": True}, (2, 2), [[1.0, 1.0], [1.0, 1.0]], "boundary"),
    ({"diag": True}, (2, 2), [[1.0, 1.0], [0.0, 1.0]], "outside"),
    ({"norm": 0.5}, (2, 2), [[1.0, 0.0], [0.0, 0.1]], "outside"),
    ({"norm": 0.5}, (2, 2), [[0.5, 0.0], [0.0, 0.1]], "boundary"),
    ({"PSD": True, "norm": 0.5}, (2, 2), [[1.0, 0.0], [0.0, 0.1]], "outside"),
    ({"nonneg": True, "norm": 0.5}, (2, 2), [[1.0, 0.1], [0.1, 0.1]], "outside"),
    ({"orthogonal": True}, (2, 2), [[2.0, 0.0], [0.0, 1.0]], "outside"),
    ({"orthogonal": True}, (2, 2), [[-1.0, 0.0], [0.0, -1.0]], "boundary"),
    ({"orthogonal": True}, (2, 2), [[0.0, 1.0], [1.0, 0.0]], "boundary"),
    ({"orthogonal": True}, (3, 2), [[-1.0, 0.0], [0.0, -1.0], [0.0, 0.0]], "boundary"),
]


@pytest.mark.parametrize(("attributes", "shape", "value", "word"), PROJECTED)
def test_values_outside_or_on_the_boundary_warn_and_keep_a_gradient(
    attributes: dict[str, object], shape: tuple[int, ...], value: object, word: str
) -> None:
    with pytest.warns(WeightWarning, match=word) as caught:
        store = WeightStore((leaf("lam", shape, **attributes),), {"lam": value}, dtype=torch.float64)
    assert "lam" in str(caught[0].message)
    assert caught[0].filename.endswith(".py")
    generator = torch.Generator().manual_seed(3)
    (store["lam"] * torch.randn(shape, dtype=torch.float64, generator=generator)).sum().backward()
    grad = store.raw("lam").grad
    assert grad is not None
    assert bool(torch.isfinite(grad).all())
    assert bool((grad != 0).any())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.set("lam", store.numpy("lam"))


def test_a_tensor_is_as_good_a_value_as_an_array() -> None:
    store = WeightStore((leaf("w", (2, 3)),), {"w": np.zeros((2, 3))})
    value = torch.arange(6.0).reshape(2, 3).requires_grad_()
    store.set("w", value)
    assert np.array_equal(store.numpy("w"), value.detach().numpy())


def test_zero_is_a_good_start_for_a_rescaled_weight() -> None:
    store = WeightStore((leaf("W", (3, 3), symmetric=True, norm=0.9),), {"W": 0.0}, dtype=torch.float64)
    (store["W"] * torch.arange(9.0, dtype=torch.float64).reshape(3, 3)).sum().backward()
    grad = store.raw("W").grad
    assert grad is not None
    assert float(grad[0, 0]) == 0.0
    assert float(grad[2, 2]) == pytest.approx(8.0)


REFUSED = [
    ({"integer": True}, (2,), "integer"),
    ({"boolean": True}, (2,), "boolean"),
    ({"hermitian": True}, (2, 2), "symmetric=True"),
    ({"PSD": True, "nonneg": True}, (2, 2), "PSD, nonneg together"),
    ({"orthogonal": True, "norm": 0.5}, (2, 2), "together"),
    ({"nonneg": True, "nonpos": True}, (2,), "together"),
    ({"symmetric": True, "diag": True}, (2, 2), "together"),
    ({"norm": 0.0}, (2, 2), "positive number"),
    ({"norm": -1.0}, (2, 2), "positive number"),
    ({"norm": float("nan")}, (2, 2), "positive number"),
    ({"norm": True}, (2, 2), "positive number"),
    ({"norm": 1.0}, (2,), "a matrix"),
    ({"norm": 1.0}, (), "a matrix"),
    ({"norm": 1.0, "bounds": (-1.0, 1.0)}, (2, 2), "norm and bounds"),
    ({"bounds": (1.0, 0.0)}, (2,), "lower <= upper"),
    ({"nonneg": True, "bounds": (-2.0, -1.0)}, (2,), "lower <= upper"),
    ({"symmetric": True, "bounds": (0.0, np.array([[1.0, 2.0], [3.0, 1.0]]))}, (2, 2), "transpose"),
    ({"PSD": True}, (2, 2, 2), "a matrix"),
    ({}, (0, 2), "no entries"),
    ({"unheard_of": True}, (2,), "unknown attribute"),
]


@pytest.mark.parametrize(("attributes", "shape", "words"), REFUSED)
def test_refusals_name_the_weight_and_the_remedy(
    attributes: dict[str, object], shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(CompileError, match=r'Weight "w".*Fix: ') as caught:
        composite(leaf("w", shape, **attributes))
    assert words in str(caught.value)


NAMES = [
    "a.b",
    "forward",
    "training",
    "value",
    "names",
    "parametrizations",
    "λ",
    "my weight",
    "weight__x",
    "_x",
    "1st",
    "original",
    "set",
]


def test_any_name_has_its_own_key() -> None:
    for attributes in ({}, {"nonneg": True}):
        leaves = tuple(leaf(n, (2,), **attributes) for n in NAMES)
        store = WeightStore(leaves, {n: np.full(2, 1.0 + i) for i, n in enumerate(NAMES)}, dtype=torch.float64)
        assert store.names == tuple(NAMES)
        assert len(store.state_dict()) == len(NAMES) == len(list(store.parameters()))
        for i, name in enumerate(NAMES):
            np.testing.assert_allclose(store.numpy(name), 1.0 + i)
            assert store.leaf(name).name == name
            assert name in store
    assert "missing" not in store


@settings(max_examples=300, deadline=None)
@given(st.text(min_size=1, max_size=6), st.text(min_size=1, max_size=6))
def test_keys_are_one_to_one_and_legal(a: str, b: str) -> None:
    keys = safe_key(a, WeightStore), safe_key(b, WeightStore)
    assert (keys[0] == keys[1]) == (a == b)
    assert all(k and "." not in k for k in keys)


def test_state_dict_is_stable_and_loads_strictly() -> None:
    leaves = (leaf("W", (3, 2), norm=0.9), leaf("b", (2,)), leaf("lam", nonneg=True))
    one = WeightStore(leaves, {"W": np.full((3, 2), 0.1), "b": np.zeros(2), "lam": 0.5})
    two = WeightStore(leaves, {"W": np.zeros((3, 2)), "b": np.ones(2), "lam": 2.0})
    assert list(one.state_dict()) == ["b", "parametrizations.W.original", "parametrizations.lam.original"]
    two.load_state_dict(one.state_dict(), strict=True)
    for name in one.names:
        assert torch.equal(one[name], two[name])


def test_deepcopy_is_independent_and_pickle_is_refused() -> None:
    for attributes in ({}, {"bounds": (0.0, 1.0)}):
        store = WeightStore((leaf("w", (2,), **attributes),), {"w": 0.5})
        twin = copy.deepcopy(store)
        twin.set("w", 0.75)
        assert float(store["w"].detach()[0]) == pytest.approx(0.5)
        assert float(twin["w"].detach()[0]) == pytest.approx(0.75)
        with pytest.raises(OpteqError, match=r"oc\.save"):
            pickle.dumps(store)
        with pytest.raises(OpteqError, match=r"oc\.save"):
            pickle.dumps(torch.nn.Sequential(store))


def test_casts_keep_bounds_in_float64() -> None:
    store = WeightStore((leaf("w", (2,), bounds=(0.1, 0.7)),), {"w": 0.4}, dtype=torch.float64)
    store.to(torch.float32).to(torch.float64)
    with torch.no_grad():
        store.raw("w").copy_(torch.tensor([-1e9, 1e9]))
    assert store["w"].tolist() == [0.1, 0.7]
    assert store.to(torch.float32)["w"].dtype == torch.float32
    assert float(store["w"].detach().double()[1]) <= 0.7
    assert store.to(torch.bfloat16)["w"].dtype == torch.bfloat16


def test_assignment_through_the_module_projects() -> None:
    store = WeightStore((leaf("W", (2, 2), norm=0.5),), {"W": 0.0}, dtype=torch.float32)
    store.W = torch.eye(2)
    assert torch.allclose(store["W"], 0.5 * (1 - 1e-3) * torch.eye(2), rtol=1e-5)


def test_functional_call_and_vmap_over_raw_weights() -> None:
    leaves = (leaf("W", (3, 2), norm=0.9), leaf("S", (2, 2), PSD=True), leaf("Q", (3, 3), orthogonal=True))
    store = WeightStore(leaves, {"W": np.zeros((3, 2)), "S": np.eye(2), "Q": np.eye(3)}, dtype=torch.float64)
    raws = {k: torch.randn(4, *v.shape, dtype=torch.float64) for k, v in store.state_dict().items()}

    def total(raw: dict[str, torch.Tensor]) -> torch.Tensor:
        given = {f"store.{key}": value for key, value in raw.items()}
        values = torch.func.functional_call(_Values(store), given, ())
        return sum((v.square().sum() * (i + 1) for i, v in enumerate(values)), torch.zeros((), dtype=torch.float64))

    batched = torch.func.vmap(torch.func.grad(total))(raws)
    for key, stacked in batched.items():
        one = torch.func.grad(total)({k: v[2] for k, v in raws.items()})[key]
        assert torch.allclose(stacked[2], one, atol=1e-12)


class _Values(torch.nn.Module):
    def __init__(self, store: WeightStore) -> None:
        super().__init__()
        self.store = store

    def forward(self) -> list[torch.Tensor]:
        return [self.store[name] for name in self.store.names]


def test_misuse() -> None:
    store = WeightStore((leaf("w", (2,)),), {"w": [1.0, 2.0]})
    with pytest.raises(InputError, match="no weight named 'v'"):
        store["v"]
    for bad in (np.ones(3), [np.nan, 1.0], "text"):
        with pytest.raises(InputError, match='Weight "w"'):
            store.set("w", bad)
    with pytest.raises(InputError, match="different names"):
        WeightStore((leaf("w"), leaf("w")), {"w": 0.0})
    with pytest.raises(InputError, match="no value"):
        WeightStore((leaf("w"),), {})
    with pytest.raises(InputError, match="without a name"):
        WeightStore((leaf(""),), {"": 0.0})
    with pytest.raises(InputError, match="WEIGHT"):
        WeightStore((Leaf("x", (), Stage.INPUT),), {"x": 0.0})
