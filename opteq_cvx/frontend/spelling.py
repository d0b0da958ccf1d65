"""CVXPY's expressions in the words in which people write them.

CVXPY prints its own classes: `x + -(D @ z)`, `PnormApprox(w, 2)`, `y + Promote(-0.0, (30,))`, and an indexed sum
without its parentheses. Plans and errors quote the user, so they say `x - D @ z`, `norm2(w)`, `y`. What is not in the
table of `names` is left to CVXPY's own `str`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.constraints.nonpos import Inequality, NonNeg, NonPos
from cvxpy.constraints.psd import PSD
from cvxpy.constraints.second_order import SOC
from cvxpy.constraints.zero import Equality, Zero
from cvxpy.expressions.leaf import Leaf

from opteq_cvx.frontend.names import arguments, entry, hidden

Text = tuple[str, int]
"""A text and how tightly it binds: 0 sums, 1 products and signs, 2 whatever needs no parentheses."""

FEW = 6
"""Entries of a constant that are shown one by one."""

NAMES = {"norm_nuc": "normNuc", "diag_vec": "diag", "diag_mat": "diag"}
"""Where our name of an operation is not CVXPY's function."""

LISTS = ("concatenate", "hstack", "vstack")
"""Functions of a list."""


def spoken(expr: object) -> str:
    """An expression or a constraint as its user would write it, on one line."""
    match expr:
        case cp.Expression():
            return _write(expr)[0]
        case Inequality():
            left, right = expr.args
            if left.is_constant() and not right.is_constant():
                return f"{spoken(right)} >= {spoken(left)}"
            return f"{spoken(left)} <= {spoken(right)}"
        case Equality():
            return f"{spoken(expr.args[0])} == {spoken(expr.args[1])}"
        case Zero() | NonNeg() | NonPos() | PSD():
            sign = {Zero: "==", NonNeg: ">=", NonPos: "<=", PSD: ">>"}[type(expr)]
            return f"{spoken(expr.args[0])} {sign} 0"
        case SOC():
            return f"SOC({', '.join(spoken(a) for a in expr.args)})"
    return " ".join(str(expr).split())


def _write(expr: Any) -> Text:
    if isinstance(expr, cp.Constant):
        return _constant(expr.value)
    if isinstance(expr, Leaf):
        return str(expr.name()).removeprefix("@"), 2
    row = entry(expr)
    if row is None:
        return " ".join(str(expr).split()), 2
    write = WRITERS.get(row.op)
    if write is not None:
        return write(expr)
    words = [_write(a)[0] for a in (*arguments(expr), *hidden(expr))]
    words = [f"[{', '.join(words)}]"] if row.op in LISTS else words
    return f"{NAMES.get(row.op, row.op)}({', '.join([*words, *_options(row.op, row.attrs(expr))])})", 2


def _options(op: str, attrs: Mapping[str, Any]) -> Iterator[str]:
    """What of a function's options is not the default."""
    if attrs.get("k") is not None and not (op.startswith("diag") and attrs["k"] == 0):
        yield f"{attrs['k']:g}"
    if attrs.get("axis") is not None or op == "cumsum":  # whose default is 0, and None the flat array
        yield f"axis={attrs['axis']}"
    if attrs.get("keepdims"):
        yield "keepdims=True"


# --- constants -----------------------------------------------------------------------------------------


def _constant(value: Any) -> Text:
    shape = list(value.shape)
    if sp.issparse(value):
        return f"sparse{shape}", 2
    flat = np.asarray(value).reshape(-1)
    if flat.size and (flat == flat[0]).all():
        return _number(flat[0])
    if len(shape) == 2 and shape[0] == shape[1] and np.array_equal(value, np.eye(shape[0])):
        return f"I[{shape[0]}]", 2
    if len(shape) == 1 and flat.size <= FEW:
        return f"[{', '.join(_number(v)[0] for v in flat)}]", 2
    return f"const{shape}", 2


def _number(value: Any) -> Text:
    if np.iscomplexobj(value):
        return f"{value:.6g}", 0
    return f"{value + 0.0:.6g}", 1 if value < 0 else 2  # + 0.0: no negative zero


def _is(expr: Any, number: float) -> bool:
    """Whether an expression is that number in every entry."""
    while (row := entry(expr)) is not None and row.op in ("promote", "broadcast_to", "neg"):
        expr, number = expr.args[0], -number if row.op == "neg" else number
    value = expr.value if isinstance(expr, cp.Constant) else None
    return value is not None and not sp.issparse(value) and bool((np.asarray(value) == number).all())


# --- operations ----------------------------------------------------------------------------------------


def _sum(expr: Any) -> Text:
    pieces = [_write(a) for a in expr.args if not _is(a, 0.0)] or [("0", 2)]
    out, level = pieces[0]
    for words, binds in pieces[1:]:
        minus = words.startswith("-") and binds == 1
        out, level = (f"{out} - {words[1:]}" if minus else f"{out} + {words}"), 0
    return out, level


def _negative(expr: Any) -> Text:
    words, binds = _write(expr.args[0])
    if binds == 1 and words.startswith("-"):
        return words[1:], 1
    return f"-{words if binds else f'({words})'}", 1


def _product(sign: str) -> Callable[[Any], Text]:
    def write(expr: Any) -> Text:
        left, right = expr.args
        if sign == "*" and not (left.is_scalar() or right.is_scalar() or _promoted(left) or _promoted(right)):
            return f"multiply({_write(left)[0]}, {_write(right)[0]})", 2
        scalar = left.is_scalar() or right.is_scalar() or _promoted(left)
        mark = "*" if scalar and sign == "@" else sign
        first, second = (_matrix(a) if mark == "@" else _write(a) for a in (left, right))
        same = f" {mark} " in second[0] and not any(f" {m} " in second[0] for m in "*@/" if m != mark)
        loose = second[1] == 1 and not second[0].startswith("-") and " / " not in second[0] and (scalar or same)
        return f"{_bound(first, 1)} {mark} {second[0] if loose else _bound(second, 2)}", 1

    return write


def _promoted(expr: Any) -> bool:
    row = entry(expr)
    return row is not None and row.op == "promote"


def _matrix(expr: Any) -> Text:
    """A factor of a matrix product, where a constant is never one number."""
    if isinstance(expr, cp.Constant) and expr.ndim and _write(expr)[0][:1].isdigit():
        return f"const{list(expr.shape)}", 2
    return _write(expr)


def _quotient(expr: Any) -> Text:
    left, right = (_write(a) for a in expr.args)
    return f"{_bound(left, 1)} / {_bound(right, 2)}", 1


def _inner(expr: Any) -> Text:
    return _write(expr.args[0])


def _transposed(expr: Any) -> Text:
    words = _bound(_write(expr.args[0]), 2)
    return (f"{words}.T", 2) if expr.axes is None else (f"transpose({words}, {expr.axes})", 2)


def _reshaped(expr: Any) -> Text:
    if expr.size == 1 or tuple(expr.shape) == tuple(expr.args[0].shape):
        return _inner(expr)
    shape = expr.shape[0] if len(expr.shape) == 1 else tuple(expr.shape)
    order = "" if expr.order == "F" or expr.ndim <= 1 >= expr.args[0].ndim else f", order={expr.order!r}"
    return f"reshape({_inner(expr)[0]}, {shape}{order})", 2


def _picked(expr: Any) -> Text:
    row = entry(expr)
    assert row is not None, "called for a row of the table"
    key = expr._orig_key if type(expr).__name__ == "index" else expr.key
    parts: Sequence[Any] = key if isinstance(key, tuple) else (key,)
    return f"{_bound(_inner(expr), 2)}[{', '.join(_place(p) for p in parts)}]", 2


def _place(key: Any) -> str:
    if isinstance(key, slice):
        ends = ":".join("" if e is None else str(e) for e in (key.start, key.stop))
        return ends if key.step in (None, 1) else f"{ends}:{key.step}"
    if key is Ellipsis:
        return "..."
    values = None if key is None or isinstance(key, int | np.integer) else np.asarray(getattr(key, "value", key))
    if values is None or values.ndim == 0:
        return str(key)
    return str(values.tolist()) if values.size <= FEW else "[…]"


def _power(expr: Any) -> Text:
    base = _inner(expr)
    p = float(expr.p.value) if isinstance(expr.p, cp.Constant) else None
    if p in (0.5, -1.0):
        return f"{'sqrt' if p == 0.5 else 'inv_pos'}({base[0]})", 2
    exponent = _bound(_write(expr.p), 2) if p is None else f"{p:g}" if p > 0 else f"({p:g})"
    return f"{_bound(base, 2)}**{exponent}", 1 if base[0].startswith("-") else 2


def _norm(expr: Any) -> Text:
    axis = "" if expr.axis is None else f", axis={expr.axis}"
    p = float(expr.p)
    return (f"norm2({_inner(expr)[0]}{axis})", 2) if p == 2.0 else (f"pnorm({_inner(expr)[0]}, {p:g}{axis})", 2)


def _squares(expr: Any) -> Text:
    axis = "" if expr.axis is None else f", axis={expr.axis}"
    if _is(expr.args[1], 1.0):
        return f"sum_squares({_inner(expr)[0]}{axis})", 2
    return f"quad_over_lin({_inner(expr)[0]}, {_write(expr.args[1])[0]}{axis})", 2


def _huber(expr: Any) -> Text:
    more = "" if _is(expr.M, 1.0) else f", {_write(expr.M)[0]}"
    return f"huber({_inner(expr)[0]}{more})", 2


def _mean(expr: Any) -> Text:
    row = entry(expr)
    assert row is not None, "called for a row of the table"
    attrs = row.attrs(expr)
    p = [round(float(w), 6) for w in attrs["p"]]
    more = [] if len(set(p)) == 1 else [str(p)] if len(p) <= FEW else ["[…]"]
    return f"geo_mean({', '.join([_inner(expr)[0], *more, *_options(row.op, attrs)])})", 2


def _wrapped(expr: Any) -> Text:
    return f"{type(expr).__name__}({_inner(expr)[0]})", 2


def _activated(expr: Any) -> Text:
    given = "".join(f", {k}={v:g}" for k, v in expr.options.items())
    return f"activation({expr.activation!r}{given}){'' if expr.half else '.f'}({_inner(expr)[0]})", 2


def _convolved(expr: Any) -> Text:
    """A convolution with the options that are not the default."""
    options = (("stride", expr.stride, (1, 1)), ("padding", expr.padding, (0, 0)), ("groups", expr.groups, 1))
    more = "".join(
        f", {k}={v if isinstance(v, int) or len(set(v)) > 1 else v[0]}" for k, v, usual in options if v != usual
    )
    name = "conv_transpose2d" if expr.transposed else "conv2d"
    return f"{name}({', '.join(_write(a)[0] for a in expr.args)}{more})", 2


def _bound(piece: Text, level: int) -> str:
    return piece[0] if piece[1] >= level else f"({piece[0]})"


WRITERS: dict[str, Callable[[Any], Text]] = {
    "activation": _activated,
    "add": _sum,
    "broadcast_to": _inner,
    "conv2d": _convolved,
    "divide": _quotient,
    "gather": _picked,
    "geo_mean": _mean,
    "huber": _huber,
    "matmul": _product("@"),
    "multiply": _product("*"),
    "neg": _negative,
    "pnorm": _norm,
    "power": _power,
    "promote": _inner,
    "quad_over_lin": _squares,
    "reshape": _reshaped,
    "transpose": _transposed,
    "wrap": _wrapped,
}
