"""What Input and Weight share: names, CVXPY's attributes, and the IR leaf of a parameter."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.expressions.leaf import Leaf as CvxpyLeaf

from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.frozen import FrozenDict, freeze, freeze_index
from opteq_cvx.ir.param import Leaf, Stage

ATTRIBUTES = tuple(inspect.signature(CvxpyLeaf).parameters)[1:]
"""The keywords of CVXPY's leaves: attributes, and `value`."""

ShapeLike = int | np.integer[Any] | Sequence[int | np.integer[Any]]
"""Shapes as CVXPY takes them; an integer is the length of a vector."""

REAL_ONLY = ("complex", "imag", "hermitian")


def declare(
    parameter: cp.Parameter, kind: str, shape: ShapeLike, name: str | None, attributes: Mapping[str, Any]
) -> None:
    """Run CVXPY's constructor on `parameter`, with errors in our words.

    Raises:
        CompileError: an empty name, an unknown attribute, a complex one, or a combination that CVXPY refuses.
    """
    origin = kind if name is None else f"{kind} {name!r}"
    if name is not None and (not isinstance(name, str) or not name):
        raise CompileError(message(f"name={name!r}", "a non-empty string", 'pass e.g. name="W"', kind))
    for key, value in attributes.items():
        if key not in ATTRIBUTES:
            near = difflib.get_close_matches(key, ATTRIBUTES, n=1)
            fix = f"write {near[0]}=" if near else "remove it"
            raise CompileError(message(f"unknown attribute {key!r}", ", ".join(ATTRIBUTES), fix, origin))
        if key in REAL_ONLY and value:
            fix = "declare the real and the imaginary part as two parameters"
            raise CompileError(message(f"attribute {key}", "real numbers", fix, origin))
    try:
        own = (int(shape),) if isinstance(shape, int | np.integer) else tuple(int(n) for n in shape)
        cp.Parameter.__init__(parameter, own, name=name, **attributes)
    except (ValueError, TypeError) as error:
        expected = "a shape and attributes that CVXPY accepts"
        raise CompileError(message(str(error).rstrip("."), expected, "change the declaration", origin)) from error


def leaf_of(parameter: cp.Parameter, stage: Stage, name: str | None = None) -> Leaf:
    """The IR leaf of any CVXPY parameter; `name` replaces the parameter's own.

    Attributes are those that are set: signs, symmetry and kinds as True, `bounds` as a pair of numbers
    or arrays, `sparsity` (and `boolean`, `integer` given by index) as index arrays, and a Weight's
    `norm` and `orthogonal`.
    """
    found: dict[str, Any] = {}
    attributes: dict[str, Any] = parameter.attributes
    for key, value in attributes.items():
        if value is None or value is False or (key == "sparsity" and parameter.sparse_idx is None):
            continue
        if key == "bounds":
            found[key] = tuple(_bound(b) for b in value)
        elif key == "sparsity":
            found[key] = tuple(freeze_index(i) for i in parameter.sparse_idx)
        elif isinstance(value, bool):
            found[key] = value
        else:  # `boolean` and `integer` may be lists of index arrays
            found[key] = tuple(freeze_index(i) for i in value)
    return Leaf(name or parameter.name(), tuple(parameter.shape), stage, FrozenDict({**found, **extra(parameter)}))


def extra(parameter: cp.Parameter) -> dict[str, Any]:
    """What a Weight has beyond CVXPY's attributes."""
    given = {"norm": vars(parameter).get("_norm"), "orthogonal": vars(parameter).get("_orthogonal")}
    return {k: v for k, v in given.items() if v is not None and v is not False}


def _bound(value: Any) -> Any:
    """A number, a frozen array, or what CVXPY has (a sparse bound)."""
    if isinstance(value, np.ndarray):
        return float(value) if value.ndim == 0 else freeze(value)
    return value
