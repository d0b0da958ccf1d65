"""Conform: whether a decoded value has the type that a dataclass field declares."""

from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np


@cache
def hints(cls: type) -> Mapping[str, Any]:
    """The resolved annotations of a class."""
    return get_type_hints(cls)


def conforms(value: Any, hint: Any) -> bool:
    """Whether `value` is of type `hint`, containers included; integers count as floats, never as booleans."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint is None:
        return value is None
    if origin in (Union, UnionType):
        return any(conforms(value, option) for option in args)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in args)
    if origin is tuple:
        return isinstance(value, tuple) and _items_conform(value, args)
    if origin is np.ndarray:
        return isinstance(value, np.ndarray) and value.dtype in _dtypes(args)
    if isinstance(origin, type):
        return isinstance(value, origin)
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)


def _items_conform(value: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    if len(args) == 2 and args[1] is Ellipsis:
        return all(conforms(item, args[0]) for item in value)
    return len(value) == len(args) and all(map(conforms, value, args))


def _dtypes(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The dtypes that an annotation `ndarray[shape, dtype[T]]` admits."""
    return tuple(np.dtype(t) for t in get_args(args[1]) if t is not Any)
