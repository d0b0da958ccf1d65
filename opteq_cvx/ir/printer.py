"""Programs as text: stable, free of ids, short enough to read. For plans, traces and golden tests."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from opteq_cvx.ir.frozen import IntArray, Shape, size
from opteq_cvx.ir.linmap import (
    Adjoint,
    Broadcast,
    Compose,
    Conv2d,
    Diagonal,
    Gather,
    Identity,
    Kron,
    LeftMul,
    LinearMap,
    Permute,
    Reshape,
    RightMul,
    Sparse,
    Sum,
    SumMap,
    Zero,
)
from opteq_cvx.ir.param import Const, Leaf, ParamExpr, Stage, is_zero
from opteq_cvx.ir.program import Affine, Program, Term

LIMIT = 160
"""Characters of one expression; longer ones are shortened in the middle."""

COLUMN = 48
"""Characters of a cell beyond which it does not widen its column for the other rows."""

Text = tuple[str, int]
"""A text and how tightly it binds: 0 sums, 1 products and signs, 2 whatever needs no parentheses."""


def param(expr: ParamExpr) -> str:
    """A parameter expression, e.g. `I[100] - W @ W.T`."""
    return _param(expr, {})[0]


def linear_map(m: LinearMap, x: str = "x") -> str:
    """A linear map applied to `x`, e.g. `A @ x[2:5]`."""
    return _map(m, (x, 2))[0]


def affine(x: Affine) -> str:
    """An affine expression, e.g. `A @ u - b`."""
    pieces = [_map(m, (name, 2)) for name, m in x.parts]
    if not pieces or not is_zero(x.offset):
        pieces.append(_param(x.offset, {}))
    return _sum(pieces)[0]


def term(t: Term) -> str:
    """One term: atom, argument, weight and attributes."""
    return "  ".join(_cells(t))


def program(p: Program) -> str:
    """The whole program, one line for each variable group, term, constraint and output."""
    lines = [f"{'minimize' if p.sign > 0 else 'maximize, as minimize of the negative'}"]
    lines.append("  variables  " + ", ".join(f"{v.name}{shape(v.shape)}" for v in p.variables))
    for title, stage in (("inputs", Stage.INPUT), ("weights", Stage.WEIGHT), ("tied", Stage.TIED)):
        found = [leaf(q) for q in p.parameters if q.stage is stage]
        if found:
            lines.append(f"  {title:<9}  " + ", ".join(found))
    rows = [(f"t{i}", *_cells(t)) for i, t in enumerate(p.terms)]
    lines.extend(_table(rows, [f"# {t.origin.where}: {t.origin.text}" for t in p.terms]))
    if not is_zero(p.offset):
        lines.append(f"  offset     {param(p.offset)}")
    for c in p.constraints:
        indices = ", ".join(f"t{i}" for i in c.terms) or "nothing"
        lines.append(f"  {c.origin.where} is {c.kind}{shape(c.shape)}: {indices}")
    lines.extend(f"  tie        {tie.parameter} = {affine(tie.value)}" for tie in p.ties)
    for out in p.outputs:
        value = affine(out.value)
        lines.append(f"  output     {out.name}" + ("" if value == out.name else f" = {value}"))
    for dual in p.dual_outputs:
        part = "" if dual.part is None else f", part {dual.part}"
        lines.append(f"  output     {dual.name} = multiplier of {p.constraints[dual.constraint].origin.where}{part}")
    return "\n".join(lines) + "\n"


def leaf(q: Leaf) -> str:
    """A parameter with its shape and attributes."""
    shown = [k if v is True else f"{k}={_value(v)}" for k, v in q.attributes.items()]
    return " ".join([f"{q.name}{shape(q.shape)}", *shown])


def shape(s: Shape) -> str:
    """A shape, `[]` for a scalar."""
    return f"[{', '.join(str(n) for n in s)}]"


def _cells(t: Term) -> tuple[str, ...]:
    static = [f"{k}={_value(v)}" for k, v in t.static.items()]
    data = [f"{k}={param(v)}" for k, v in t.data.items()]
    weight = [] if t.weight is None else [f"w={param(t.weight)}"]
    return (t.atom, affine(t.arg), " ".join([*weight, *static, *data]))


def _table(rows: list[tuple[str, ...]], comments: list[str]) -> Iterable[str]:
    widths = [max((len(r[i]) for r in rows if len(r[i]) <= COLUMN), default=0) for i in range(4)]
    for row, comment in zip(rows, comments, strict=True):
        cells = "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))
        yield f"  {cells}  {comment}".rstrip()


# --- parameter expressions -----------------------------------------------------------------------------


def _param(expr: ParamExpr, known: dict[int, Text]) -> Text:
    if id(expr) not in known:
        words, tight = _write(expr, known)
        known[id(expr)] = (_short(words), tight)
    return known[id(expr)]


def _write(expr: ParamExpr, known: dict[int, Text]) -> Text:
    if isinstance(expr, Const):
        return _const(expr)
    if isinstance(expr, Leaf):
        return expr.name, 2
    args = [_param(a, known) for a in expr.args]
    match expr.op:
        case "add":
            return _sum(args)
        case "neg":
            return f"-{_bind(args[0], 1)}", 1
        case "multiply":
            return _product(args[0], "*", args[1])
        case "matmul":
            return _product(args[0], "@", args[1])
        case "divide":
            return f"{_bind(args[0], 1)} / {_bind(args[1], 2)}", 1
        case "broadcast_to":
            return args[0]
        case "transpose" if len(expr.shape) == 2:
            return f"{_bind(args[0], 2)}.T", 2
        case "reshape":
            return f"reshape({args[0][0]}, {shape(expr.shape)}{_order(expr.attrs['order'])})", 2
        case "gather":
            return _picked(args[0], expr.attrs["index"], expr.args[0].shape), 2
        case "map" | "map_apply":
            return _map(expr.attrs["map"], args[0])
        case "map_adjoint":
            return f"adjoint[{_map(expr.attrs['map'], ('·', 2))[0]}]({args[0][0]})", 2
        case "map_matrix":
            return f"matrix[{_map(expr.attrs['map'], ('·', 2))[0]}]", 2
        case _:
            more = [f"{k}={_value(v)}" for k, v in expr.attrs.items() if v is not None and v is not False]
            return f"{expr.op}({', '.join([*(a for a, _ in args), *more])})", 2


def _const(expr: Const) -> Text:
    s = expr.shape
    if len(s) == 2 and s[0] == s[1] > 1 and _is_identity(expr):
        return f"I[{s[0]}]", 2
    if expr.sparse:
        value: Any = expr.value
        return f"sparse{shape(s)}({value.count_nonzero()} nonzero)", 2
    flat = expr.dense().reshape(-1)
    if flat.size and (flat == flat[0]).all():
        return _number(flat[0])
    if flat.size <= 6 and len(s) == 1:
        return f"[{', '.join(_number(v)[0] for v in flat)}]", 2
    return f"const{shape(s)}", 2


def _is_identity(expr: Const) -> bool:
    value: Any = expr.value
    diagonal = value.diagonal()
    count = value.count_nonzero() if expr.sparse else np.count_nonzero(value)
    return bool((diagonal == 1.0).all() and count == diagonal.size)


def _number(value: float) -> Text:
    return f"{value:.6g}", 2 if value >= 0 else 1


# --- linear maps ---------------------------------------------------------------------------------------


def _map(m: LinearMap, x: Text) -> Text:
    match m:
        case Identity():
            return x
        case Zero(shape_out=s):
            return f"0{shape(s)}", 2
        case Diagonal(d=d):
            scale = _param(d, {})
            return (f"-{_bind(x, 1)}", 1) if scale[0] == "-1" else _product(scale, "*", x)
        case LeftMul(a=a):
            return _product(_param(a, {}), "@", x)
        case RightMul(b=b):
            return _product(x, "@", _param(b, {}))
        case Gather(index=index, shape_in=s):
            return _picked(x, index, s), 2
        case Reshape(shape_out=s, order=order):
            return f"reshape({x[0]}, {shape(s)}{_order(order)})", 2
        case Permute(axes=axes):
            return (f"{_bind(x, 2)}.T", 2) if axes == (1, 0) else (f"permute({x[0]}, {axes})", 2)
        case Sum(axes=axes, shape_in=s, keepdims=keepdims):
            return f"sum({x[0]}{_axes(axes, s)}{', keepdims' if keepdims else ''})", 2
        case Broadcast(shape_out=s):
            return f"broadcast({x[0]}, {shape(s)})", 2
        case Sparse(matrix=matrix):
            return _product((f"sparse{shape(matrix.shape)}({matrix.nnz} nonzero)", 2), "@", x)
        case Compose(maps=maps):
            for part in reversed(maps):
                x = _map(part, x)
            return x
        case SumMap(maps=maps):
            return _sum([_map(part, x) for part in maps])
        case Adjoint(of=of):
            return f"adjoint[{_map(of, ('·', 2))[0]}]({x[0]})", 2
        case Conv2d(kernel=kernel):
            return f"conv2d({x[0]}, {_param(kernel, {})[0]}{_conv_options(m)})", 2
        case Kron(a=a, side=side):
            first, second = (_param(a, {})[0], x[0]) if side == "left" else (x[0], _param(a, {})[0])
            return f"kron({first}, {second})", 2


def _conv_options(m: Conv2d) -> str:
    """What of a convolution's options is not the default."""
    pairs = (("stride", m.stride, (1, 1)), ("padding", m.padding, (0, 0)))
    words = [f", {k}={v[0] if v[0] == v[1] else v}" for k, v, usual in pairs if v != usual]
    return "".join(words) + (f", groups={m.groups}" if m.groups > 1 else "")


def _picked(x: Text, index: IntArray, source: Shape) -> str:
    flat = index.reshape(-1)
    inside = bool(flat.size and (flat >= 0).all())
    ranges = slices(index, source) if inside else None
    if ranges is not None:
        return f"{_bind(x, 2)}[{', '.join(ranges)}]"
    if inside and flat.size <= 6 and index.ndim <= 1:
        places = [_place(int(i), source) for i in flat]
        return f"{_bind(x, 2)}[{places[0] if index.ndim == 0 else ', '.join(places)}]"
    kind = "gather" if inside or not flat.size else "place"
    return f"{kind}({x[0]}, {shape(index.shape)})"


def slices(index: IntArray, source: Shape) -> list[str] | None:
    """The index as one integer or increasing range for each axis of the source; None when it is neither."""
    out: list[str] = []
    axis = 0
    for a, c in enumerate(np.unravel_index(index, source) if source else ()):
        if (c == c.flat[0]).all() and len(source) - a > index.ndim - axis:
            out.append(str(int(c.flat[0])))
            continue
        if axis == index.ndim:
            return None
        line = np.moveaxis(c, axis, 0).reshape(c.shape[axis], -1)
        steps = np.diff(line[:, 0])
        if (line != line[:, :1]).any() or (steps <= 0).any() or (steps != steps[:1]).any():
            return None
        step = int(steps[0]) if steps.size else 1
        first, last = int(line[0, 0]), int(line[-1, 0])
        whole = (first, last, step) == (0, source[a] - 1, 1)
        out.append(":" if whole else f"{first}:{last + 1}{'' if step == 1 else f':{step}'}")
        axis += 1
    return out if out and axis == index.ndim else None


def _place(i: int, source: Shape) -> str:
    where = np.unravel_index(i, source) if source else ()
    return str(i) if len(source) <= 1 else f"({', '.join(str(int(w)) for w in where)})"


# --- composition of texts ------------------------------------------------------------------------------


def _sum(pieces: list[Text]) -> Text:
    if len(pieces) == 1:
        return pieces[0]
    out = pieces[0][0]
    for words, tight in pieces[1:]:
        out += f" - {words[1:]}" if words.startswith("-") and tight == 1 else f" + {words}"
    return _short(out), 0


def _product(a: Text, sign: str, b: Text) -> Text:
    if a[0] == "-1" and not b[0].startswith("-"):
        return f"-{_bind(b, 1)}", 1
    return f"{_bind(a, 1)} {sign} {_bind(b, 2 if ' / ' in b[0] or b[0].startswith('-') else 1)}", 1


def _bind(piece: Text, level: int) -> str:
    return piece[0] if piece[1] >= level else f"({piece[0]})"


def _axes(axes: tuple[int, ...], s: Shape) -> str:
    if len(axes) == len(s):
        return ""
    return f", axis={axes[0]}" if len(axes) == 1 else f", axis={axes}"


def _order(order: str) -> str:
    return ", F" if order == "F" else ""


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, np.ndarray):
        return f"array{shape(value.shape)}" if size(value.shape) > 6 else str(value.tolist())
    if isinstance(value, tuple) and len(value) > 6:
        return f"({_value(value[0])}, ..., {_value(value[-1])})"
    if isinstance(value, tuple):
        return f"({', '.join(_value(v) for v in value)}{',' if len(value) == 1 else ''})"
    return str(value)


def _short(words: str) -> str:
    if len(words) <= LIMIT:
        return words
    half = (LIMIT - 3) // 2
    return f"{words[:half]} … {words[-half:]}"
