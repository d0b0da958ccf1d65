"""Codec: every IR class survives, sharing too; what is not in the format is refused by name."""

import copy
import importlib
import inspect
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

import numpy as np
import pytest
import scipy.sparse as sp

import opteq_cvx.ir
from opteq_cvx.errors import FileError
from opteq_cvx.ir.codec import IR, Encoded, decode, encode
from opteq_cvx.ir.conform import conforms
from opteq_cvx.ir.frozen import Array, FrozenDict, IntArray
from opteq_cvx.ir.linmap import Compose, Identity
from opteq_cvx.ir.param import Apply, Const, Leaf, Stage, const
from opteq_cvx.ir.program import Program
from tests.ir.samples import everything


def through_json(encoded: Encoded) -> Any:
    return json.loads(json.dumps(encoded.json, allow_nan=False))


def assert_same(a: Any, b: Any, seen: dict[int, int]) -> None:
    assert type(a) is type(b)
    if is_dataclass(a):
        assert seen.setdefault(id(a), id(b)) == id(b), "sharing is kept"
        for f in fields(a):
            assert_same(getattr(a, f.name), getattr(b, f.name), seen)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert not b.flags.writeable
        np.testing.assert_array_equal(a, b)
        assert a.shape == b.shape
    elif isinstance(a, sp.csr_array):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a.toarray(), b.toarray())
    elif isinstance(a, Mapping):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key], seen)
    elif isinstance(a, tuple | list):
        assert len(a) == len(b)
        for p, q in zip(a, b, strict=True):
            assert_same(p, q, seen)
    else:
        assert a == b


def test_every_class_survives() -> None:
    sample = everything()
    encoded = encode(sample)
    assert {row["is"] for row in encoded.json["nodes"]} == set(IR)
    assert_same(sample, decode(through_json(encoded), encoded.tensors), {})


def test_every_dataclass_of_the_ir_is_registered() -> None:
    found = set()
    for module in pkgutil.iter_modules(opteq_cvx.ir.__path__):
        members = vars(importlib.import_module(f"opteq_cvx.ir.{module.name}")).values()
        found |= {
            c for c in members if inspect.isclass(c) and is_dataclass(c) and c.__module__.startswith("opteq_cvx.ir.")
        }
    private = {c for c in found if c.__name__.startswith("_") or c is Encoded}
    assert found - private == set(IR.values())
    assert all(cls.__name__ == tag for tag, cls in IR.items())


def test_shared_leaves_stay_one_object() -> None:
    program, _ = everything()
    encoded = encode(program)
    back = decode(through_json(encoded), encoded.tensors)
    assert isinstance(back, Program)
    W = next(p for p in back.parameters if p.name == "W")
    inside = back.terms[0].arg.offset
    assert isinstance(inside, Apply)
    assert inside.args[0] is W


def test_depth_and_shared_diamonds_are_cheap() -> None:
    e: Any = Leaf("x", (), Stage.INPUT)
    for _ in range(1200):
        e = Apply("add", (e, e), ())  # 2^1200 paths, 1201 nodes, deeper than the recursion limit
    encoded = encode(e)
    assert len(encoded.json["nodes"]) == 1201
    assert decode(through_json(encoded), encoded.tensors).stage is Stage.INPUT


def test_zero_dimensional_and_empty_constants() -> None:
    for value in (np.array(2.5), np.zeros((0, 3)), np.array([[np.nan, np.inf]])):
        encoded = encode(Const(value))
        back = decode(through_json(encoded), encoded.tensors)
        np.testing.assert_array_equal(back.value, value)
        assert back.value.shape == value.shape


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, np.array(["a"]), lambda: 0, {1: 2}, type])
def test_values_without_an_encoding_are_named(value: Any) -> None:
    with pytest.raises(FileError, match=r"Apply\.attrs\.secret"):
        encode(Apply("add", (const(1.0),), (), FrozenDict(secret=value)))


def test_unregistered_dataclasses_are_refused_and_extra_ones_welcome() -> None:
    @dataclass(frozen=True)
    class Mine:
        n: int = 3

    with pytest.raises(FileError, match="Mine"):
        encode((Mine(),))
    encoded = encode((Mine(4),), {"Mine": Mine})
    assert decode(through_json(encoded), {}, {"Mine": Mine}) == (Mine(4),)


GOOD: dict[str, Any] = {"is": "Identity", "shape_in": {"tuple": [3]}}
CSR: dict[str, Any] = {"data": "f", "indices": "i", "indptr": "i"}
HOSTILE: list[Any] = [
    None,
    [],
    3,
    {},
    {"nodes": []},
    {"nodes": [GOOD]},
    {"nodes": [{}], "root": None},
    {"nodes": 3, "root": 1},
    {"nodes": [{**GOOD, "is": "os.system"}], "root": None},
    {"nodes": [{**GOOD, "is": "Leaf"}], "root": None},
    {"nodes": [{**GOOD, "extra": 1}], "root": None},
    {"nodes": [{"is": "Identity"}], "root": None},
    {"nodes": [{"is": "Identity", "shape_in": [3]}], "root": None},
    {"nodes": [{"is": "Identity", "shape_in": {"tuple": ["3"]}}], "root": None},
    {"nodes": [{"is": "Identity", "shape_in": {"tuple": [True]}}], "root": None},
    {"nodes": [{"is": "Identity", "shape_in": {"tuple": [-3]}}], "root": None},
    {"nodes": [{"is": "Identity", "shape_in": {"tuple": [10**9, 10**9]}}], "root": None},
    {"nodes": [{"is": "Identity", "shape_in": {"tuple": [10**400]}}], "root": None},
    {"nodes": [{"is": "Adjoint", "of": {"node": 0}}], "root": {"node": 0}},
    {"nodes": [{"is": "Adjoint", "of": {"node": 1}}, GOOD], "root": {"node": 0}},
    {"nodes": [{"is": "Compose", "maps": {"tuple": []}}], "root": {"node": 0}},
    {"nodes": [GOOD], "root": {"node": 1}},
    {"nodes": [GOOD], "root": {"node": -1}},
    {"nodes": [GOOD], "root": {"node": True}},
    {"nodes": [GOOD], "root": {"node": 0, "tuple": []}},
    {"nodes": [GOOD], "root": {"eval": "1"}},
    {"nodes": [GOOD], "root": {"array": "missing"}},
    {"nodes": [GOOD], "root": {"float": "1e9"}},
    {"nodes": [GOOD], "root": {"stage": "__class__"}},
    {"nodes": [GOOD], "root": {"tuple": 3}},
    {"nodes": [{"is": "Const", "value": 1.0}], "root": {"node": 0}},
    {"nodes": [{"is": "Const", "value": {"array": "i"}}], "root": {"node": 0}},
    {"nodes": [{"is": "Gather", "index": {"array": "i"}, "shape_in": {"tuple": [2]}}], "root": {"node": 0}},
    {"nodes": [{"is": "Gather", "index": {"array": "f"}, "shape_in": {"tuple": [9]}}], "root": {"node": 0}},
    {
        "nodes": [{"is": "Permute", "axes": {"tuple": [0, 0]}, "shape_in": {"tuple": [2, 2]}}],
        "root": {"node": 0},
    },
    {
        "nodes": [{"is": "Sum", "axes": {"tuple": [5]}, "shape_in": {"tuple": [2]}, "keepdims": False}],
        "root": {"node": 0},
    },
    {"nodes": [{"is": "Const", "value": {"csr": {**CSR, "shape": [10**12, 1]}}}], "root": {"node": 0}},
    {"nodes": [{"is": "Const", "value": {"csr": {**CSR, "shape": [2, 1]}}}], "root": {"node": 0}},
    {"nodes": [{"is": "Const", "value": {"csr": {"shape": [2, True], "data": "f"}}}], "root": {"node": 0}},
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_data_is_refused(data: Any) -> None:
    tensors = {"i": np.array([0, 5, 1]), "f": np.array([0.0, 1.0, 2.0])}
    with pytest.raises(FileError, match="Fix: "):
        decode(data, tensors)


def test_random_edits_are_refused_or_harmless() -> None:
    program, _ = everything()
    encoded = encode(program)
    rng = np.random.default_rng(0)
    junk = [None, -1, 10**30, "x", {"node": 0}, {"tuple": []}, {"map": {}}, {"array": "c0"}, [], True, 1.5]
    refused = 0
    for _ in range(150):
        data = copy.deepcopy(encoded.json)
        row = data["nodes"][rng.integers(len(data["nodes"]))]
        row[list(row)[rng.integers(len(row))]] = junk[rng.integers(len(junk))]
        try:
            decode(data, encoded.tensors)
        except FileError:
            refused += 1
    assert refused > 110


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, True),
        (True, int, False),
        (True, float, False),
        (1.0, int, False),
        (None, int | None, True),
        ((1, 2), tuple[int, ...], True),
        ((1, "a"), tuple[int, ...], False),
        ((1, "a"), tuple[int, str], True),
        ("best", Literal["best", "nan"], True),
        ("worst", Literal["best"], False),
        ({}, Mapping[str, int], True),
        (np.zeros(2), Array, True),
        (np.zeros(2, dtype=np.int64), Array, False),
        (np.zeros(2), IntArray, False),
        (Identity((2,)), Identity | Compose, True),
        ("x", Identity | Compose, False),
        (object(), Any, True),
    ],
)
def test_conforms(value: Any, hint: Any, expected: bool) -> None:
    assert conforms(value, hint) is expected
