"""Save and load compiled layers: one `.opteq` file, no pickle, no CVXPY needed to load."""

import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_args

import numpy as np
import torch

from opteq_cvx.errors import FileError, message
from opteq_cvx.ir import archive, codec
from opteq_cvx.ir.conform import hints
from opteq_cvx.ir.frozen import size
from opteq_cvx.ir.param import Stage
from opteq_cvx.ir.program import Program
from opteq_cvx.layer import EquilibriumLayer
from opteq_cvx.options import Options
from opteq_cvx.weights.composite import composite
from opteq_cvx.weights.draw import draw

RAW = {
    torch.float64: np.float64,
    torch.float32: np.float32,
    torch.float16: np.float32,
    torch.bfloat16: np.float32,
}
"""How raw weights are stored; NumPy has no bfloat16, and float32 holds both halves exactly."""

DENSE_ENTRIES = 2**28
"""A weight with fixed zeros may have so many entries (2 GiB); others no more than the numbers in the file."""


def save(layer: EquilibriumLayer, path: str | os.PathLike[str]) -> None:
    """Write a layer to one file (by custom `.opteq`): its program, options and trained weights.

    Written atomically. The CVXPY problem is not part of it: a loaded layer is checked against the one
    rebuilt from the program.

    Raises:
        FileError: an option that has no encoding, such as a tensor.
        OSError: the file cannot be written; an older one at `path` is untouched.
    """
    encoded = codec.encode((layer.plan.source, layer.options), option_classes())
    tensors, weights = dict(encoded.tensors), {}
    for i, name in enumerate(layer.weights.names):
        raw = layer.weights.raw(name).detach().cpu()
        weights[name] = {"raw": f"w{i}", "dtype": str(raw.dtype).removeprefix("torch.")}
        tensors[f"w{i}"] = np.ascontiguousarray(raw.to(_wide(raw.dtype)).numpy()).reshape(tuple(raw.shape))
    archive.write(path, {"layer": encoded.json, "weights": weights}, tensors)


def load(path: str | os.PathLike[str]) -> EquilibriumLayer:
    """Read a layer that `save` wrote, onto the CPU and in the dtype it had; raw weights are equal bit by bit.

    Imports no CVXPY. A file from elsewhere is safe to load: it holds no code, and everything in it is
    checked.

    Raises:
        FileError: not such a file, damaged, truncated, or of another schema version.
        OSError: there is no file at `path`.
    """
    document, tensors = archive.read(path)
    try:
        program, options = codec.decode(document["layer"], tensors, option_classes())
        weights = document["weights"]
        if not isinstance(program, Program) or not isinstance(options, Options):
            raise codec.damaged("no program and options")
        raws = {name: _raw(row, tensors) for name, row in weights.items()}
        layer = EquilibriumLayer.from_program(program, _starts(program, raws), options)
    except FileError:
        raise
    except Exception as error:  # whatever hostile contents do to the compiler
        raise codec.damaged(f"{os.fspath(path)!r}: {type(error).__name__}: {error}") from error
    _restore(layer, raws)
    return layer


def option_classes() -> codec.Classes:
    """What a file may hold: the IR, Options, and every imported class that a field of Options admits."""
    found: dict[str, type] = {}
    stack: list[type] = [Options]
    while stack:
        cls = stack.pop()
        if found.get(cls.__name__) is cls or codec.IR.get(cls.__name__) is cls or _replaced(cls):
            continue
        stack.extend(cls.__subclasses__())
        if is_dataclass(cls) and not inspect.isabstract(cls):
            if cls.__name__ in {**found, **codec.IR}:
                fix = "rename one of the classes"
                raise FileError(message(f"two classes named {cls.__name__}", "one tag for each class", fix))
            found[cls.__name__] = cls
            stack.extend(c for hint in hints(cls).values() for c in _classes_in(hint))
    return {**codec.IR, **found}


def _classes_in(hint: Any) -> Iterator[type]:
    """The option classes, concrete or abstract, in an annotation."""
    if isinstance(hint, type) and (is_dataclass(hint) or inspect.isabstract(hint)):
        yield hint
    for part in get_args(hint):
        yield from _classes_in(part)


def _replaced(cls: type) -> bool:
    """Whether `cls` is the leftover of `dataclass(slots=True)`, which makes a second class of its name."""
    module = sys.modules.get(cls.__module__)
    current = vars(module).get(cls.__qualname__, cls) if module is not None else cls
    return current is not cls


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if RAW[dtype] is np.float64 else torch.float32


def _raw(row: Mapping[str, Any], tensors: codec.Tensors) -> torch.Tensor:
    """One stored raw weight, in the dtype it had."""
    dtype = {str(d).removeprefix("torch."): d for d in RAW}[row["dtype"]]
    array = tensors[row["raw"]]
    if row.keys() != {"raw", "dtype"} or array.dtype != RAW[dtype]:
        raise codec.damaged(f"a weight stored as {array.dtype} for {row['dtype']}")
    return torch.tensor(array).to(dtype)


def _starts(program: Program, raws: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Admissible values to build the weights with; the raw ones replace them, boundary or not."""
    leaves = [p for p in program.parameters if p.stage is Stage.WEIGHT]
    if {leaf.name for leaf in leaves} != raws.keys():
        raise codec.damaged(f"weights {sorted(raws)} for a program with {sorted(leaf.name for leaf in leaves)}")
    starts: dict[str, Any] = {}
    for leaf in leaves:
        part = composite(leaf)
        if part is None:
            _check_shape(leaf.name, raws[leaf.name], leaf.shape)
            starts[leaf.name] = raws[leaf.name].double().nan_to_num().numpy()
        else:
            _check_shape(leaf.name, raws[leaf.name], part.raw_shape(leaf.shape))
            if size(leaf.shape) > max(DENSE_ENTRIES, raws[leaf.name].numel()):
                raise codec.damaged(f'weight "{leaf.name}" of shape {leaf.shape}, mostly zeros,')
            starts[leaf.name] = draw(leaf, part, torch.Generator().manual_seed(0)).numpy()
    return starts


def _check_shape(name: str, raw: torch.Tensor, expected: tuple[int, ...]) -> None:
    if tuple(raw.shape) != expected:
        raise codec.damaged(f'weight "{name}" of shape {tuple(raw.shape)} instead of {expected}')


def _restore(layer: EquilibriumLayer, raws: Mapping[str, torch.Tensor]) -> None:
    """Put the stored raw weights in place."""
    with torch.no_grad():
        for name, raw in raws.items():
            layer.weights.raw(name).data = raw
