"""A memo by object identity that forgets an entry when its object dies: host-side facts about frozen data."""

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class IdentityMemo(Generic[V]):
    """What was computed from an object, found again by the object itself (arrays cannot be keys)."""

    def __init__(self) -> None:
        self._known: dict[int, V] = {}

    def of(self, key: object, make: Callable[[], V]) -> V:
        """The remembered result for `key`, else what `make` returns."""
        found = self._known.get(id(key))
        if found is None:
            found = self._known[id(key)] = make()
            weakref.finalize(key, self._known.pop, id(key), None).atexit = False
        return found
