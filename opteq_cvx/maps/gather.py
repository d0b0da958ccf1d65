"""Selections: out.flat[i] = x.flat[index.flat[i]], or 0 where the index is −1; adjoints scatter and add.

Ranges are slices, zero padding is `pad`, the adjoint of an injective selection is another selection. A part of a
matrix, X[a:b, c:d], is a slice of rows and columns of the flat vector, whatever was stacked around it.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import IntArray, Shape, size
from opteq_cvx.maps.base import Operator
from opteq_cvx.maps.combine import regroup
from opteq_cvx.maps.memo import IdentityMemo

Copies = dict[tuple[int, torch.device], Tensor]
"""Index tensors by host array and device, kept by one bound operator."""


def on_device(index: IntArray, device: torch.device, copies: Copies) -> Tensor:
    """A host index as a tensor: on the CPU the same memory, elsewhere one copy per bound operator."""
    host = torch.from_numpy(index)
    if device.type == "cpu":
        return host
    key = (id(index), device)
    if key not in copies:
        copies[key] = host.to(device)
    return copies[key]


@dataclass(frozen=True, eq=False)
class Pick:
    """How to read from axis 1 of (B, n, ...): a slice or an index, between `before` and `after` zeros.

    With `extended`, the index reads from the axis with one zero appended.
    """

    pick: slice | IntArray
    before: int = 0
    after: int = 0
    extended: bool = False

    def __call__(self, x: Tensor, copies: Copies) -> Tensor:
        """(B, n, ...) → (B, m, ...)."""
        if self.extended:
            x = torch.cat([x, x.new_zeros(x.shape[0], 1, *x.shape[2:])], dim=1)
        if isinstance(self.pick, slice):
            out = x[:, self.pick]
        else:
            out = x.index_select(1, on_device(self.pick, x.device, copies))
        if self.before or self.after:
            out = F.pad(out, (*(0, 0) * (x.ndim - 2), self.before, self.after))
        return out


@dataclass(frozen=True, eq=False)
class Window:
    """Rows × columns of axis 1 of (B, n, ...) seen as a matrix with rows of length `width`, from `base` on."""

    base: int
    rows: int
    width: int
    start: int
    columns: int

    def __call__(self, x: Tensor, copies: Copies) -> Tensor:
        """(B, n, ...) → (B, rows·columns, ...)."""
        inside = x[:, self.base : self.base + self.rows * self.width].unflatten(1, (self.rows, self.width))
        found: Tensor = inside[:, :, self.start : self.start + self.columns].flatten(1, 2)
        return found


@dataclass(frozen=True, eq=False)
class Framed:
    """The adjoint of a window: zeros around it."""

    n: int
    of: Window

    def __call__(self, y: Tensor, copies: Copies) -> Tensor:
        """(B, rows·columns, ...) → (B, n, ...)."""
        w, more = self.of, (0, 0) * (y.ndim - 2)
        inside = y.unflatten(1, (w.rows, w.columns))
        wide = F.pad(inside, (*more, w.start, w.width - w.start - w.columns)).flatten(1, 2)
        framed: Tensor = F.pad(wide, (*more, w.base, self.n - w.base - w.rows * w.width))
        return framed


def window_of(index: IntArray, n: int) -> Window | None:
    """Runs of equal length at equal distances, where they fit into n entries as rows of a matrix."""
    if index.size < 4 or index[0] < 0:
        return None
    steps = np.diff(index)
    jumps = np.flatnonzero(steps != 1)
    if not jumps.size:
        return None
    columns, width = int(jumps[0]) + 1, int(index[jumps[0] + 1] - index[0])
    rows, left = divmod(index.size, columns)
    if left or width <= columns:
        return None
    expected = index[0] + width * np.arange(rows)[:, None] + np.arange(columns)
    start = max(0, int(index[0]) + rows * width - n)
    if start > min(width - columns, int(index[0])) or not np.array_equal(index.reshape(rows, columns), expected):
        return None
    return Window(int(index[0]) - start, rows, width, start, columns)


def pick_of(index: IntArray, n: int) -> Pick:
    """The cheapest way to read a flat `index` (−1 for zero) from n entries."""
    valid = np.flatnonzero(index >= 0)
    if valid.size == 0:
        return Pick(slice(0, 0), before=index.size)
    first, last = int(valid[0]), int(valid[-1])
    middle = index[first : last + 1].copy()
    if valid.size != middle.size:
        return Pick(np.where(index < 0, n, index), extended=True)
    start, step = int(middle[0]), int(middle[1] - middle[0]) if middle.size > 1 else 1
    is_range = step > 0 and bool((np.diff(middle) == step).all())
    pick = slice(start, start + (middle.size - 1) * step + 1, step) if is_range else middle
    return Pick(pick, before=first, after=index.size - 1 - last)


@dataclass(frozen=True, eq=False)
class Scatter:
    """Add entries of axis 1 of (B, m, ...) into n places: the adjoint of a selection that repeats entries."""

    n: int
    read: Pick
    place: IntArray

    def __call__(self, y: Tensor, copies: Copies) -> Tensor:
        """(B, m, ...) → (B, n, ...)."""
        zeros = y.new_zeros(y.shape[0], self.n, *y.shape[2:])
        return zeros.index_add(1, on_device(self.place, y.device, copies), self.read(y, copies))


def scatter_of(index: IntArray, n: int) -> Pick | Scatter:
    """The adjoint of reading a flat `index` from n entries."""
    valid = np.flatnonzero(index >= 0)
    target = index[valid]
    inverse = np.full(n, -1, dtype=np.int64)
    inverse[target] = valid
    if np.count_nonzero(inverse >= 0) == target.size:
        return pick_of(inverse, index.size)
    return Scatter(n, pick_of(valid, index.size), target)


@dataclass(frozen=True, eq=False)
class GatherOperator(Operator):
    """The selection as an operator; `columns` are the lengths of trailing axes that it carries along."""

    read: Pick | Window
    write: Pick | Scatter | Framed
    columns: tuple[int, ...] = ()
    _copies: Copies = field(default_factory=dict)

    @override
    def apply(self, x: Tensor) -> Tensor:
        return regroup(self.read(self._flat(x, self.shape_in), self._copies), self.shape_out)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        return regroup(self.write(self._flat(y, self.shape_out), self._copies), self.shape_in)

    def _flat(self, x: Tensor, shape: Shape) -> Tensor:
        own = shape[: len(shape) - len(self.columns)]
        return regroup(x, (size(own), *self.columns))

    @override
    def lift(self, columns: int) -> Operator:
        shapes = (*self.shape_in, columns), (*self.shape_out, columns)
        return GatherOperator(*shapes, self.read, self.write, (*self.columns, columns), self._copies)


Ways = tuple[Pick | Window, Pick | Scatter | Framed]
_WAYS: IdentityMemo[Ways] = IdentityMemo()


def gather_operator(index: IntArray, shape_in: Shape) -> GatherOperator:
    """The operator of a frozen index array with the shape of the output."""
    n = size(shape_in)

    def ways() -> Ways:
        flat = index.reshape(-1)
        window = window_of(flat, n)
        if window is not None:
            return window, Framed(n, window)
        return pick_of(flat, n), scatter_of(flat, n)

    read, write = ways() if index.flags.writeable else _WAYS.of(index, ways)
    return GatherOperator(shape_in, index.shape, read, write)
