"""Codec: frozen dataclasses to JSON and arrays, and back. No code is stored, none is run.

The objects become a table, children before parents, so that what is shared stays shared and decoding
cannot loop: `{"nodes": [{"is": "Const", "value": ...}, ...], "root": ...}`. Values that JSON lacks are
tagged objects with one key: `node`, `tuple`, `list`, `dict`, `map` (FrozenDict), `float` (inf, nan),
`slice`, `stage`, `array`, `csr`. Arrays lie beside the JSON, by key.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from opteq_cvx.errors import FileError, message
from opteq_cvx.ir.conform import conforms, hints
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.invariants import MAX_ENTRIES, check
from opteq_cvx.ir.layout import Layout, Selection
from opteq_cvx.ir.linmap import (
    Adjoint,
    Broadcast,
    Compose,
    Conv2d,
    Diagonal,
    Gather,
    Identity,
    Kron,
    LeftMul,
    Permute,
    Reshape,
    RightMul,
    Sparse,
    Sum,
    SumMap,
    Zero,
)
from opteq_cvx.ir.param import Apply, Const, Leaf, Stage
from opteq_cvx.ir.pattern import Arg, Match, Op, Par
from opteq_cvx.ir.program import Affine, Constraint, Dual, DualOutput, Origin, Output, Program, Term, Tie, Variable
from opteq_cvx.ir.tree import Node

Classes = Mapping[str, type]
"""Dataclasses by the tag that stands for them in a file."""

IR: Classes = {
    "Adjoint": Adjoint,
    "Affine": Affine,
    "Apply": Apply,
    "Arg": Arg,
    "Broadcast": Broadcast,
    "Compose": Compose,
    "Const": Const,
    "Conv2d": Conv2d,
    "Constraint": Constraint,
    "Diagonal": Diagonal,
    "Dual": Dual,
    "DualOutput": DualOutput,
    "Gather": Gather,
    "Identity": Identity,
    "Kron": Kron,
    "Layout": Layout,
    "Leaf": Leaf,
    "LeftMul": LeftMul,
    "Match": Match,
    "Node": Node,
    "Op": Op,
    "Origin": Origin,
    "Output": Output,
    "Par": Par,
    "Permute": Permute,
    "Program": Program,
    "Reshape": Reshape,
    "RightMul": RightMul,
    "Selection": Selection,
    "Sparse": Sparse,
    "Sum": Sum,
    "SumMap": SumMap,
    "Term": Term,
    "Tie": Tie,
    "Variable": Variable,
    "Zero": Zero,
}
"""Every dataclass of the IR. A change of a class's fields is a new schema version (`archive.SCHEMA`)."""

Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Encoded:
    """An object as JSON data and the arrays that it refers to by key."""

    json: dict[str, Any]
    tensors: Tensors


def encode(root: Any, classes: Classes = IR) -> Encoded:
    """`root`, a registered dataclass or a tuple, list or dict of them, as JSON data and arrays.

    Raises:
        FileError: a value that has no encoding; the message names the field.
    """
    writer = _Writer({cls: tag for tag, cls in classes.items()})
    writer.visit(root)
    return Encoded({"nodes": writer.nodes, "root": writer.value(root, "root")}, writer.tensors)


@dataclass(slots=True)
class _Writer:
    tags: Mapping[type, str]
    nodes: list[dict[str, Any]] = field(default_factory=list)
    tensors: Tensors = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    keys: dict[int, str] = field(default_factory=dict)

    def visit(self, root: Any) -> None:
        """Write every registered object below `root`, children first, without recursion."""
        stack: list[Any] = list(_objects(root, self.tags))
        while stack:
            top = stack[-1]
            missing = [c for c in self._children(top) if id(c) not in self.places]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            if id(top) not in self.places:
                self._write(top)

    def _write(self, node: Any) -> None:
        tag = self.tags[type(node)]
        row = {f.name: self.value(getattr(node, f.name), f"{tag}.{f.name}") for f in fields(node) if f.init}
        self.places[id(node)] = len(self.nodes)
        self.nodes.append({"is": tag, **row})

    def _children(self, node: Any) -> Iterator[Any]:
        for f in fields(node):
            if f.init:
                yield from _objects(getattr(node, f.name), self.tags)

    def value(self, value: Any, where: str) -> Any:
        """One value as JSON data."""
        match value:
            case None | bool() | str():
                return value
            case Stage():
                return {"stage": value.name}
            case int() | np.integer():
                return int(value)
            case float() | np.floating():
                return float(value) if np.isfinite(value) else {"float": str(float(value))}
            case np.bool_():
                return bool(value)
            case tuple() | list():
                return {type(value).__name__: [self.value(v, where) for v in value]}
            case FrozenDict():
                return {"map": {k: self.value(v, f"{where}.{k}") for k, v in value.items()}}
            case dict() if all(isinstance(k, str) for k in value):
                return {"dict": {k: self.value(v, f"{where}.{k}") for k, v in value.items()}}
            case slice():
                return {"slice": [self.value(v, where) for v in (value.start, value.stop, value.step)]}
            case np.ndarray() if value.dtype.kind in "fib":
                return {"array": self._tensor(value)}
            case sp.csr_array():
                parts = {name: self._tensor(vars(value)[name]) for name in ("data", "indices", "indptr")}
                return {"csr": {"shape": [int(n) for n in value.shape], **parts}}
            case _ if type(value) in self.tags:
                return {"node": self.places[id(value)]}
        found = f"{where} holds a {type(value).__module__}.{type(value).__qualname__}"
        fix = "register the class with the codec, or keep the object out of what is saved"
        raise FileError(message(found, "numbers, text, arrays and registered dataclasses", fix))

    def _tensor(self, array: npt.NDArray[Any]) -> str:
        key = self.keys.get(id(array))
        if key is None:
            key = self.keys[id(array)] = f"c{len(self.tensors)}"
            self.tensors[key] = np.ascontiguousarray(array).reshape(array.shape)
        return key


def _objects(value: Any, tags: Mapping[type, str]) -> Iterator[Any]:
    """The registered objects directly inside a value, containers opened."""
    if type(value) in tags:
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _objects(item, tags)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _objects(item, tags)


def decode(data: Any, tensors: Mapping[str, npt.NDArray[Any]], classes: Classes = IR) -> Any:
    """The object that `encode` wrote.

    Raises:
        FileError: an unknown tag or field, a value of the wrong type, a reference forward or to
        nothing, or an
            object that breaks an invariant of the IR.
    """
    reader = _Reader(classes, tensors)
    try:
        for row in data["nodes"]:
            reader.nodes.append(reader.node(row))
        return reader.value(data["root"])
    except FileError:
        raise
    except Exception as error:  # whatever hostile data does to the constructors
        raise damaged(f"{type(error).__name__}: {error}") from error


def damaged(found: str) -> FileError:
    """The error for a file whose contents make no sense."""
    fix = "save the layer again, or get an undamaged copy of the file"
    return FileError(message(found.rstrip("."), "a file written by oc.save", fix))


@dataclass(slots=True)
class _Reader:
    classes: Classes
    tensors: Mapping[str, npt.NDArray[Any]]
    nodes: list[Any] = field(default_factory=list)

    def node(self, row: Mapping[str, Any]) -> Any:
        tag = row["is"]
        if tag not in self.classes:
            raise damaged(f"unknown kind of object {tag!r}")
        cls = self.classes[tag]
        assert is_dataclass(cls)
        expected = {f.name for f in fields(cls) if f.init}
        if row.keys() != expected | {"is"}:
            raise damaged(f"{tag} with fields {sorted(row.keys() - {'is'})} instead of {sorted(expected)}")
        given = {name: self.value(row[name]) for name in expected}
        for name, hint in hints(cls).items():
            if name in expected and not conforms(given[name], hint):
                raise damaged(f"{tag}.{name} of type {type(given[name]).__name__}")
        built: Any = cls(**given)
        check(built)
        return built

    def value(self, data: Any) -> Any:
        if not isinstance(data, Mapping):
            if isinstance(data, list):
                raise damaged("an untagged list")
            return data
        ((tag, inner),) = data.items()
        match tag:
            case "node" if type(inner) is int and 0 <= inner < len(self.nodes):
                return self.nodes[inner]
            case "tuple" | "list":
                return (tuple if tag == "tuple" else list)(self.value(v) for v in inner)
            case "map" | "dict":
                items = {k: self.value(v) for k, v in inner.items()}
                return FrozenDict(items) if tag == "map" else items
            case "float" if inner in ("inf", "-inf", "nan"):
                return float(inner)
            case "slice" if len(inner) == 3:
                return slice(*(self.value(v) for v in inner))
            case "stage":
                return Stage[inner]
            case "array":
                return self._array(inner)
            case "csr":
                return self._csr(inner)
        raise damaged(f"a value tagged {tag!r} that cannot be read")

    def _array(self, key: Any) -> npt.NDArray[Any]:
        array = self.tensors[key]
        if array.dtype.kind not in "fib":
            raise damaged(f"an array of dtype {array.dtype}")
        array.flags.writeable = False
        return array

    def _csr(self, parts: Mapping[str, Any]) -> sp.csr_array:
        rows, columns = parts["shape"]
        if not all(isinstance(n, int) and 0 <= n <= MAX_ENTRIES for n in (rows, columns)):
            raise damaged(f"a sparse matrix of shape {parts['shape']}")
        data, indices, indptr = (self._array(parts[name]) for name in ("data", "indices", "indptr"))
        if data.dtype != np.float64 or indices.dtype.kind != "i" or indptr.shape != (rows + 1,):
            raise damaged("a sparse matrix whose parts do not fit")
        matrix = sp.csr_array((data, indices, indptr), shape=(rows, columns))
        matrix.check_format(full_check=True)
        return matrix
