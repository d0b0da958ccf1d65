"""Immutable building blocks shared by all IR objects."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

Shape = tuple[int, ...]
Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Frozen:
    """Base of IR objects: compared by identity, shared (never duplicated) by `copy.deepcopy`."""

    __slots__ = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Frozen":
        return self


class FrozenDict(Frozen, Mapping[str, Any]):
    """An immutable string-keyed mapping (a `MappingProxyType` can be neither copied nor pickled)."""

    __slots__ = ("_items",)
    _items: dict[str, Any]

    def __init__(self, items: Mapping[str, Any] | None = None, **more: Any) -> None:
        object.__setattr__(self, "_items", {**(items or {}), **more})

    @override
    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    @override
    def __len__(self) -> int:
        return len(self._items)

    @override
    def __hash__(self) -> int:
        return hash(frozenset(self._items))  # equal mappings have equal keys; values need not be hashable

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("FrozenDict is immutable")

    @override
    def __repr__(self) -> str:
        return f"FrozenDict({self._items!r})"


EMPTY = FrozenDict()


def freeze(array: Any) -> Array:
    """Copy `array` into a read-only, C-contiguous float64 array."""
    out = np.array(array, dtype=np.float64, order="C")
    out.flags.writeable = False
    return out


def freeze_index(array: Any) -> IntArray:
    """Copy `array` into a read-only, C-contiguous int64 array."""
    out = np.array(array, dtype=np.int64, order="C")
    out.flags.writeable = False
    return out


def size(shape: Shape) -> int:
    """Number of entries of an array of this shape (1 for a scalar)."""
    return math.prod(shape)
