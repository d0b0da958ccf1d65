"""Layout: where each variable, and each term's coordinates, lie in the flat vector of all variables."""

from dataclasses import dataclass

import numpy as np

from opteq_cvx.ir.frozen import Frozen, IntArray, Shape, size
from opteq_cvx.ir.linmap import Compose, Diagonal, Gather, Identity, LinearMap, Permute, Reshape
from opteq_cvx.ir.param import ParamExpr, is_zero, multiply
from opteq_cvx.ir.program import Affine, Program


@dataclass(frozen=True, slots=True, eq=False)
class Layout(Frozen):
    """Names, shapes and starts of the variables in the flat vector u of length n (C order, program order)."""

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    starts: tuple[int, ...]
    n: int

    @staticmethod
    def of(program: Program) -> "Layout":
        """The layout of a program's variables."""
        shapes = tuple(v.shape for v in program.variables)
        sizes = [size(s) for s in shapes]
        starts = tuple(int(s) for s in np.cumsum([0, *sizes])[:-1])
        return Layout(tuple(v.name for v in program.variables), shapes, starts, sum(sizes))

    def start(self, name: str) -> int:
        """Where a variable begins."""
        return self.starts[self.names.index(name)]


@dataclass(frozen=True, slots=True, eq=False)
class Selection(Frozen):
    """An argument of the form s ∘ u[index] + b with distinct coordinates: what a prox can carry exactly.

    `index` has the argument's shape; `scale` broadcasts to it (None means 1).
    """

    index: IntArray
    scale: ParamExpr | None
    offset: ParamExpr

    @property
    def plain(self) -> bool:
        """Whether it is a pure selection: no scale, no offset."""
        return self.scale is None and is_zero(self.offset)


def as_selection(arg: Affine, layout: Layout) -> Selection | None:
    """Read an affine argument as a scaled selection of distinct coordinates, or None when it is not one."""
    if len(arg.parts) != 1:
        return None
    name, linear = arg.parts[0]
    shape = layout.shapes[layout.names.index(name)]
    index = np.asarray(layout.start(name) + np.arange(size(shape)).reshape(shape))
    read = _walk(linear, index)
    if read is None:
        return None
    index, scale = read
    if (index < 0).any() or np.unique(index).size != index.size:
        return None
    return Selection(index, scale, arg.offset)


def _walk(linear: LinearMap, index: IntArray) -> tuple[IntArray, ParamExpr | None] | None:
    match linear:
        case Identity():
            return index, None
        case Gather(index=pick):
            return np.asarray(np.concatenate([index.reshape(-1), [-1]])[pick]), None
        case Reshape(shape_out=shape, order=order):
            return index.reshape(shape, order="F" if order == "F" else "C"), None
        case Permute(axes=axes):
            return index.transpose(axes), None
        case Diagonal(d=d):
            return index, d
        case Compose(maps=maps):
            scale: ParamExpr | None = None
            for i, part in enumerate(reversed(maps)):
                read = _walk(part, index)
                if read is None:
                    return None
                index, more = read
                if more is not None:
                    scale = more if scale is None else multiply(more, scale)
                elif scale is not None and scale.shape != () and i and not isinstance(part, Identity):
                    return None  # a scaling below a rearrangement: the scale would have to move with it
            return index, scale
        case _:
            return None
