"""The CVXPY functions that `verify` builds expressions with, typed (CVXPY exports no types for them), in C
order."""

from collections.abc import Sequence
from typing import Any

import cvxpy as cp

from opteq_cvx.ir.frozen import Shape

FUNCTIONS: Any = cp
"""CVXPY's namespace without types, for functions looked up here and by name."""


def vec(x: Any) -> cp.Expression:
    """x as a vector."""
    out: cp.Expression = x if x.ndim == 1 else FUNCTIONS.vec(x, order="C")
    return out


def reshape(x: Any, shape: Shape) -> cp.Expression:
    """x in another shape."""
    out: cp.Expression = x if tuple(x.shape) == tuple(shape) else FUNCTIONS.reshape(x, shape, order="C")
    return out


def broadcast(x: Any, shape: Shape) -> cp.Expression:
    """x broadcast by NumPy's rules."""
    out: cp.Expression = x if tuple(x.shape) == tuple(shape) else FUNCTIONS.broadcast_to(x, shape)
    return out


def matmul(a: Any, b: Any) -> cp.Expression:
    """a @ b."""
    out: cp.Expression = a @ b
    return out


def multiply(a: Any, b: Any) -> cp.Expression:
    """a ∘ b."""
    out: cp.Expression = FUNCTIONS.multiply(a, b)
    return out


def total(x: Any) -> cp.Expression:
    """The sum of the entries of x."""
    out: cp.Expression = x if tuple(x.shape) == () else FUNCTIONS.sum(x)
    return out


def add(parts: Sequence[Any]) -> cp.Expression:
    """The sum of expressions of one shape."""
    out: cp.Expression = parts[0]
    for part in parts[1:]:
        out = out + part
    return out


def stack(parts: Sequence[Any]) -> cp.Expression:
    """Scalars as a vector."""
    out: cp.Expression = FUNCTIONS.hstack([reshape(p, (1,)) for p in parts])
    return out


def sum_squares(x: Any) -> cp.Expression:
    """‖x‖²."""
    out: cp.Expression = FUNCTIONS.sum_squares(x)
    return out


def has_parameters(x: Any) -> bool:
    """Whether x depends on parameters."""
    return bool(x.parameters())


def arguments(x: Any) -> Sequence[cp.Expression]:
    """The arguments of an atom."""
    out: Sequence[cp.Expression] = x.args
    return out
