"""What each atom means in CVXPY: from its own spellings, or from the table below where a spelling cannot say
it.

The table is short on purpose: an atom needs a row only where its static attributes are numbers inside the
text (`sum_largest(x, k)`) or its argument joins several (`kl_div`). Everything else is read from
`Atom.spellings`."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from opteq_cvx.atoms import Atom, Spelling, Trait, atom
from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.ir.frozen import IntArray, Shape, size
from opteq_cvx.verify.cvx import FUNCTIONS, broadcast, multiply, reshape, stack, sum_squares, vec

Data = Mapping[str, cp.Expression]
"""Dynamic attributes as CVXPY leaves, in their own shapes."""

Meaning = cp.Expression | list[cp.Constraint]
"""The values of a function, flat in the order of `Atom.value` (C order), or the constraints of a set."""

NAMES: Mapping[str, Any] = {
    **{k: v for k, v in vars(cp).items() if not k.startswith("_")},
    "np": np,
    "cp": cp,
}
"""What a spelling's text may use."""


@dataclass(frozen=True, slots=True)
class Argument:
    """The atom's argument: a flat expression in C order and its event shape."""

    flat: cp.Expression
    shape: Shape

    def shaped(self) -> cp.Expression:
        """The expression in its event shape."""
        return reshape(self.flat, self.shape)

    def groups(self, axes: Sequence[int] | None) -> IntArray:
        """Flat positions, one row per value of an atom that reduces `axes` (None: all of them)."""
        grid = np.arange(size(self.shape)).reshape(self.shape)
        if axes is None or not self.shape:
            return grid.reshape(1, -1)
        ends = tuple(range(-len(axes), 0))
        moved = np.moveaxis(grid, tuple(axes), ends)
        return np.asarray(moved.reshape(-1, size(moved.shape[moved.ndim - len(axes) :])))

    def group_shape(self, axes: Sequence[int] | None) -> Shape:
        """The event shape of one group."""
        if axes is None:
            return self.shape
        return tuple(self.shape[a] for a in axes)


def meaning(name: str, argument: Argument, static: Mapping[str, Any], data: Data) -> Meaning:
    """f(argument) in CVXPY.

    Raises:
        UnsupportedError: neither the table nor a spelling of the atom says how CVXPY writes it.
    """
    if name in TABLE:
        return TABLE[name](argument, static, data)
    cls = atom(name)
    spelling = _fitting(cls, static, data)
    if spelling is None:
        expected = "a spelling whose argument is a variable and whose data are parameters"
        found = f"atom {name!r} with {dict(static)} has no spelling that CVXPY can rebuild"
        raise UnsupportedError(message(found, expected, f"add one to {cls.__module__}"))
    if Trait.SEPARABLE in cls.traits:
        return _separable(spelling, argument, data)
    axes = static.get("axes")
    groups = argument.groups(axes)
    texts = [
        _evaluate(spelling, Argument(argument.flat[g], argument.group_shape(axes)).shaped(), data)
        for g in groups
    ]
    if spelling.constraint:
        return [c for text in texts for c in (text if isinstance(text, list) else [text])]
    return stack(texts)


def _fitting(cls: type[Atom], static: Mapping[str, Any], data: Data) -> Spelling | None:
    """The first spelling that can stand for any term with these attributes."""
    for spelling in cls.spellings:
        plain = spelling.text and spelling.arg in spelling.variables and len(spelling.variables) == 1
        named = set(spelling.data) == set(data) and all(
            v in spelling.parameters for v in spelling.data.values()
        )
        fixed = {k: v for k, v in spelling.static.items() if k != "axes"} == {
            k: v for k, v in static.items() if k != "axes"
        }
        if plain and named and fixed and re.fullmatch(r"1(\.0)?", spelling.weight):
            return spelling
    return None


def _evaluate(spelling: Spelling, x: cp.Expression, data: Data, **more: Any) -> Any:
    """The spelling's text with its variable and data replaced."""
    names = {**NAMES, **more, spelling.arg: x}
    names.update({text: data[key] for key, text in spelling.data.items()})
    return eval(spelling.text, {"__builtins__": {}}, names)


ENTRYWISE = {
    "sum": lambda x: x,
    "norm1": FUNCTIONS.abs,
    "sum_squares": FUNCTIONS.square,
}
"""Sums of elementwise functions without the sum, so that a weight can go on each entry."""


def _separable(spelling: Spelling, argument: Argument, data: Data) -> Meaning:
    """An elementwise f: entry by entry at once where the text is a sum, one entry at a time otherwise."""
    full = {k: broadcast(d, argument.shape) if d.shape else d for k, d in data.items()}
    if spelling.constraint:
        found = _evaluate(spelling, argument.shaped(), full)
        return found if isinstance(found, list) else [found]
    whole = _evaluate(spelling, argument.shaped(), full, **ENTRYWISE)
    if whole.shape == argument.shape:
        return vec(whole)
    flat = {k: vec(d) if d.shape else d for k, d in full.items()}
    entries = []
    for i in range(size(argument.shape)):
        mine = {k: d[i : i + 1] if d.shape else d for k, d in flat.items()}
        entries.append(_evaluate(spelling, argument.flat[i : i + 1], mine))
    return stack(entries)


# --- what spellings cannot say -------------------------------------------------------------------------


def _linear(x: Argument, static: Mapping[str, Any], data: Data) -> Meaning:
    return multiply(_flat(data["c"], x.shape), x.flat) if "c" in data else x.flat


def _box(x: Argument, static: Mapping[str, Any], data: Data) -> Meaning:
    sides: list[cp.Constraint] = []
    for name, sign in (("lower", 1.0), ("upper", -1.0)):
        bound = _flat(data[name], x.shape)
        kept = _finite(bound)
        if kept.size:
            sides.append(sign * (x.flat[kept] - bound[kept]) >= 0)
    return sides


def _quad_form(x: Argument, static: Mapping[str, Any], data: Data) -> Meaning:
    """xᵀPx as ‖Bx‖², where `data["P"]` is the factor B (see `rebuild`)."""
    groups = x.groups((-1,))
    return stack([sum_squares(data["P"] @ x.flat[g]) for g in groups])


def _flat(datum: cp.Expression, shape: Shape) -> cp.Expression:
    """A datum broadcast to the argument's shape, flat in C order."""
    return vec(broadcast(datum, shape))


def _finite(bound: cp.Expression) -> IntArray:
    return np.flatnonzero(np.isfinite(np.asarray(bound.value).reshape(-1)))


TABLE: dict[str, Callable[[Argument, Mapping[str, Any], Data], Meaning]] = {
    "linear": _linear,
    "box": _box,
    "quad_form": _quad_form,
}
