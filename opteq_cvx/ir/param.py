"""ParamExpr: an expression in parameters and constants only, and its stage.

A ParamExpr is evaluated by torch once per call (`maps.evaluate`), never inside the loop. Operation
names and their attributes follow CVXPY's function of the same name, so `Apply("norm1", (W,), {"axis": 0})`
means `cvxpy.norm1(W, axis=0)`. Reshapes and gathers act on C-ordered arrays unless `order="F"` says otherwise.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import scipy.sparse as sp

from opteq_cvx.ir.frozen import EMPTY, Array, Frozen, FrozenDict, Shape, freeze


class Stage(IntEnum):
    """When a value is known: at compile time, per weight update, per sample, at the equilibrium. An upper bound."""

    CONSTANT = 0
    WEIGHT = 1
    INPUT = 2
    TIED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Const(Frozen):
    """A constant in float64: a read-only array, or a `scipy.sparse.csr_array` when it is 2-D and sparse."""

    value: Array | sp.csr_array

    @property
    def shape(self) -> Shape:
        return tuple(int(n) for n in self.value.shape)

    @property
    def stage(self) -> Stage:
        return Stage.CONSTANT

    @property
    def sparse(self) -> bool:
        return bool(sp.issparse(self.value))

    def dense(self) -> Array:
        """The constant as a dense array."""
        return self.value.toarray() if isinstance(self.value, sp.csr_array) else self.value


@dataclass(frozen=True, slots=True, eq=False)
class Leaf(Frozen):
    """A parameter of the program: an input (one per sample), a weight (shared by the batch), or tied to an output.

    `attributes` holds CVXPY's attribute names that are set (`nonneg=True`, `PSD=True`, `bounds=...`)
    and, for weights, `norm` (a certified bound on the spectral norm).
    """

    name: str
    shape: Shape
    stage: Stage
    attributes: FrozenDict = EMPTY


@dataclass(frozen=True, slots=True, eq=False)
class Apply(Frozen):
    """The operation `op` on ParamExprs; `attrs` are static (ints, floats, strings, tuples, index arrays)."""

    op: str
    args: tuple["ParamExpr", ...]
    shape: Shape
    attrs: FrozenDict = EMPTY
    stage: Stage = field(init=False)

    def __post_init__(self) -> None:
        stage = max((a.stage for a in self.args), default=Stage.CONSTANT)
        object.__setattr__(self, "stage", stage)


ParamExpr = Const | Leaf | Apply


def const(value: Any) -> Const:
    """Wrap a number, an array or a sparse matrix as a float64 constant."""
    if sp.issparse(value):
        return Const(sp.csr_array(value, dtype=np.float64))
    return Const(freeze(value))


def leaves(expr: ParamExpr) -> Iterator[Leaf]:
    """Each distinct leaf of `expr` once, in order of first appearance."""
    seen: set[int] = set()
    stack: list[ParamExpr] = [expr]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Leaf):
            yield node
        elif isinstance(node, Apply):
            stack.extend(reversed(node.args))


# --- smart constructors: fold the constants that matter, so that plans stay readable ---------------


def _scalar_const(expr: ParamExpr) -> float | None:
    """The value of a constant whose entries are all equal, else None."""
    if isinstance(expr, Const) and not expr.sparse and expr.dense().size:
        if not any(expr.dense().strides):  # one entry, repeated without memory
            return float(expr.dense().flat[0])
        flat = expr.dense().reshape(-1)
        if (flat == flat[0]).all():
            return float(flat[0])
    return None


def is_zero(expr: ParamExpr) -> bool:
    """Whether `expr` is a constant that is zero everywhere."""
    if isinstance(expr, Const) and expr.sparse:
        return bool(np.count_nonzero(expr.value.data) == 0)
    return _scalar_const(expr) == 0.0


def is_one(expr: ParamExpr) -> bool:
    """Whether `expr` is a constant that is one everywhere."""
    return _scalar_const(expr) == 1.0


def broadcast_to(expr: ParamExpr, shape: Shape) -> ParamExpr:
    """`expr` broadcast to `shape` by NumPy's rules."""
    if expr.shape == shape:
        return expr
    if isinstance(expr, Const):
        return Const(freeze(np.broadcast_to(expr.dense(), shape)))
    return Apply("broadcast_to", (expr,), shape)


def add(*args: ParamExpr) -> ParamExpr:
    """The broadcast sum; zero constants that do not change the shape are dropped."""
    shape = np.broadcast_shapes(*(a.shape for a in args))
    kept = [a for a in args if not is_zero(a)]
    if not kept:
        return const(np.zeros(shape))
    if all(isinstance(a, Const) for a in kept):
        total = sum((a.dense() for a in kept if isinstance(a, Const)), np.zeros(shape))
        return const(total)
    if len(kept) == 1:
        return broadcast_to(kept[0], shape)
    return Apply("add", tuple(kept), shape)


def multiply(a: ParamExpr, b: ParamExpr) -> ParamExpr:
    """The broadcast elementwise product, with constants folded."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    if is_zero(a) or is_zero(b):
        return const(np.zeros(shape))
    if isinstance(a, Const) and isinstance(b, Const):
        return const(a.dense() * b.dense())
    if is_one(a):
        return broadcast_to(b, shape)
    if is_one(b):
        return broadcast_to(a, shape)
    return Apply("multiply", (a, b), shape)


def neg(a: ParamExpr) -> ParamExpr:
    """−a, with a double negation removed."""
    if isinstance(a, Const):
        return const(-a.value)
    if isinstance(a, Apply) and a.op == "neg":
        return a.args[0]
    return Apply("neg", (a,), a.shape)
