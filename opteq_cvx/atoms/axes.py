"""Functions that reduce axes: the static field `axes`, its recognition, moving them to the end and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Recognized
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.frozen import FrozenDict, Shape
from opteq_cvx.ir.pattern import match
from opteq_cvx.ir.tree import Node

WRONG: tuple[Mapping[str, Any], ...] = ({"axes": ()}, {"axes": (0,)}, {"axes": (-1, -1)})


@dataclass(frozen=True, slots=True)
class Reducing(Atom):
    """A function of the entries along `axes` (negative numbers), one value for each position of the others.

    Raises:
        CompileError: `axes` is empty, repeats, or is not negative.
    """

    axes: tuple[int, ...] = (-1,)

    copied: ClassVar[tuple[str, ...]] = ()  # attributes of the node that are static attributes too
    wrong = WRONG

    def __post_init__(self) -> None:
        good = self.axes and all(a < 0 for a in self.axes) and len(set(self.axes)) == len(self.axes)
        if not good:
            found, expected = f"atom {self.name!r} got axes={self.axes}", "distinct negative numbers"
            raise CompileError(message(found, expected, "count axes from the end: -1 is the last one"))

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        for pattern in cls.patterns:
            found = match(pattern, node)
            if found is None or found.bound["x"].affine is None:
                continue
            arg = found.bound["x"].affine
            function = node.args[0] if node.op == "sublevel" else node
            axes = _axes_of(function.attrs.get("axis"), len(arg.shape))
            if not axes:
                return None  # the function of one number
            data = {k: n.param for k, n in found.bound.items() if k != "x"}
            static = {"axes": axes, **{key: function.attrs[key] for key in cls.copied}}
            return Recognized(arg, FrozenDict(static), FrozenDict(data))
        return None


def _axes_of(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """CVXPY's `axis` as sorted negative numbers; None means all axes."""
    if axis is None:
        return tuple(range(-ndim, 0))
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    return tuple(sorted(a if a < 0 else a - ndim for a in given))


def join(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Move `axes` to the end and flatten them into one."""
    if axes == (-1,):
        return x
    last = tuple(range(-len(axes), 0))
    return x.movedim(axes, last).flatten(-len(axes))


def split(y: Tensor, axes: tuple[int, ...], shape: Shape) -> Tensor:
    """Undo `join` for a tensor whose joined axis has the sizes that `shape` has on `axes`."""
    if axes == (-1,):
        return y
    last = tuple(range(-len(axes), 0))
    return y.reshape((*y.shape[:-1], *(shape[a] for a in axes))).movedim(last, axes)
