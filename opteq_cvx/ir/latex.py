"""Programs as LaTeX, for notebooks: the printer's sibling. Names of the user are escaped."""

import re
from collections.abc import Sequence

import numpy as np

from opteq_cvx.ir.frozen import FrozenDict, IntArray, Shape
from opteq_cvx.ir.latex_functions import Text, bound, function
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
from opteq_cvx.ir.param import Apply, Const, Leaf, ParamExpr, is_zero
from opteq_cvx.ir.printer import slices
from opteq_cvx.ir.program import Affine, Program, Term

DOT: Text = (r"\cdot", 2)
ONE: Text = ("1", 2)

GREEK = frozenset(
    (
        *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu"),
        *("xi", "pi", "rho", "sigma", "tau", "phi", "chi", "psi", "omega"),
        *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"),
    )
)
SPECIAL = {
    "\\": r"\backslash ", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\wedge ", "~": r"\sim ", "<": r"\lt ", ">": r"\gt ", " ": r"\ ",
}  # fmt: skip
PARTS = re.compile(r"(?P<stem>[A-Za-z]+)_?(?P<index>\d+|(?<=_)[A-Za-z0-9]+(?:_[A-Za-z0-9]+)*)?$")


def name(words: str) -> str:
    r"""A name as a symbol: `W`, `lam` as \lambda, `u_f` and `W1` with an index, longer ones upright.

    Characters that mean something in LaTeX are escaped.
    """
    found = PARTS.match(words)
    if found is None:
        return rf"\mathrm{{{''.join(SPECIAL.get(c, c) for c in words)}}}"
    stem = {"lam": "lambda", "eps": "epsilon"}.get(found["stem"], found["stem"])
    symbol = f"\\{stem}" if stem in GREEK else stem if len(stem) == 1 else rf"\mathrm{{{stem}}}"
    index = found["index"]
    return symbol if index is None else rf"{symbol}_{{{index.replace('_', ',')}}}"


def param(expr: ParamExpr) -> str:
    """A parameter expression."""
    return _param(expr)[0]


def affine(x: Affine) -> str:
    """An affine expression of the variables."""
    return _affine(x)[0]


def term(t: Term) -> str:
    """One term of the objective, a set as its indicator."""
    if t.atom == "level_set":
        rest = {key: value for key, value in t.data.items() if key not in ("level", "weight")}
        static = FrozenDict(dict(t.static["options"]))
        inner = Term(t.static["f"], t.arg, t.origin, t.data.get("weight"), static, FrozenDict(rest))
        return rf"\iota\{{{term(inner)} \le {_param(t.data['level'])[0]}\}}"
    data = {key: _param(value) for key, value in t.data.items()}
    body = function(t.atom, t.static, len(t.arg.shape))(_affine(t.arg), data)
    if t.weight is None:
        return body
    factor = _param(t.weight)
    if factor == ONE:
        return body
    if not _uniform(t.weight):
        return rf"\langle {factor[0]}, {body} \rangle"
    return rf"{bound(factor, 1)}\,{body}"


def total(terms: tuple[Term, ...]) -> str:
    """The sum of terms."""
    return _added([(term(t), 0) for t in terms])[0] if terms else "0"


def unit(s: ParamExpr, u: str, c: Sequence[ParamExpr]) -> str:
    """S u + c, the argument of an activation."""
    return _added([_times(_param(s), r"\,", (u, 2)), *(_param(part) for part in c)])[0]


def program(p: Program) -> str:
    """The program: what is minimized over which variables, sets as indicators, and the ties."""
    over = ",\\, ".join(name(v.name) for v in p.variables)
    text = rf"\underset{{{over}}}{{\mathrm{{minimize}}}}\quad {total(p.terms)}"
    ties = [rf"{name(t.parameter)} = {affine(t.value)}" for t in p.ties]
    return lines([text, *ties]) if ties else text


def lines(formulas: Sequence[str]) -> str:
    """Several formulas below each other."""
    return r"\begin{array}{l} " + r" \\ ".join(formulas) + r" \end{array}"


def _uniform(expr: ParamExpr) -> bool:
    """Whether an expression is one number for all entries."""
    if isinstance(expr, Const):
        return not expr.sparse and bool((expr.dense() == expr.dense().flat[0]).all())
    if int(np.prod(expr.shape)) == 1:
        return True
    spread = isinstance(expr, Apply) and expr.op in ("broadcast_to", "reshape", "neg", "multiply")
    return spread and isinstance(expr, Apply) and all(_uniform(a) for a in expr.args)


# --- parameter expressions and maps --------------------------------------------------------------------


def _affine(x: Affine) -> Text:
    pieces = [_map(m, (name(v), 2)) for v, m in x.parts]
    if not pieces or not is_zero(x.offset):
        pieces.append(_param(x.offset))
    return _added(pieces)


def _param(expr: ParamExpr) -> Text:
    if isinstance(expr, Const):
        return _const(expr)
    if isinstance(expr, Leaf):
        return name(expr.name.removeprefix("@")), 2
    args = [_param(a) for a in expr.args]
    match expr.op:
        case "add":
            return _added(args)
        case "neg":
            return _negative(args[0])
        case "multiply":
            scalar = any(map(_uniform, expr.args))
            if isinstance(expr.args[1], Const) and scalar:
                args.reverse()  # numbers first
            return _times(args[0], r"\," if scalar else r" \odot ", args[1])
        case "matmul":
            return _times(args[0], r"\,", args[1])
        case "divide":
            return rf"\frac{{{args[0][0]}}}{{{args[1][0]}}}", 2
        case "reshape" if len(expr.args[0].shape) == 1 and len(expr.shape) == 2 and expr.shape[0] == 1:
            return rf"{bound(args[0], 2)}^\top", 2
        case "broadcast_to" | "reshape":
            return args[0]
        case "transpose" if len(expr.shape) == 2:
            return rf"{bound(args[0], 2)}^\top", 2
        case "gather":
            return _picked(args[0], expr.attrs["index"], expr.args[0].shape), 2
        case "map" | "map_apply":
            return _map(expr.attrs["map"], args[0])
        case "map_adjoint":
            return rf"\bigl({_map(expr.attrs['map'], DOT)[0]}\bigr)^* {bound(args[0], 2)}", 1
        case "map_matrix":
            return rf"\bigl[{_map(expr.attrs['map'], DOT)[0]}\bigr]", 2
    words = expr.op.replace("_", r"\_")
    return rf"\operatorname{{{words}}}({', '.join(a for a, _ in args)})", 2


def _const(expr: Const) -> Text:
    shape = expr.shape
    square = len(shape) == 2 and shape[0] == shape[1] > 1
    if square and not expr.sparse and np.array_equal(expr.dense(), np.eye(shape[0])):
        return "I", 2
    if square and expr.sparse and abs(expr.dense() - np.eye(shape[0])).max() == 0:
        return "I", 2
    flat = np.zeros(2) if expr.sparse else expr.dense().reshape(-1)
    if not expr.sparse and flat.size and (flat == flat[0]).all():
        if np.isinf(flat[0]):
            return (r"\infty" if flat[0] > 0 else r"-\infty"), 2
        return r"\tfrac12" if flat[0] == 0.5 else f"{flat[0]:.6g}", 2 if flat[0] >= 0 else 1
    sizes = r" \times ".join(str(n) for n in shape)
    return rf"C_{{{sizes}}}", 2


def _map(m: LinearMap, x: Text) -> Text:
    match m:
        case Identity() | Reshape():
            return x
        case Zero():
            return "0", 2
        case Diagonal(d=d):
            scalar = int(np.prod(d.shape)) == 1
            return _times(_param(d), r"\," if scalar else r" \odot ", x)
        case LeftMul(a=a):
            return _times(_param(a), r"\,", x)
        case RightMul(b=b):
            return _times(x, r"\,", _param(b))
        case Gather(index=index, shape_in=shape):
            return _picked(x, index, shape), 2
        case Permute():
            return rf"{bound(x, 2)}^\top", 2
        case Sum(axes=axes, shape_in=shape):
            return _summed(x, axes, shape)
        case Broadcast():
            return x
        case Sparse():
            return rf"S\,{bound(x, 1)}", 1
        case Compose(maps=maps):
            left = list(maps)
            while left:
                part = left.pop()
                if left and _product_of_all(left[-1], part):
                    left.pop()
                    x = _inner(part, x)
                else:
                    x = _map(part, x)
            return x
        case SumMap(maps=maps):
            return _added([_map(part, x) for part in maps])
        case Adjoint(of=of):
            return rf"\bigl({_map(of, DOT)[0]}\bigr)^* {bound(x, 2)}", 1
        case Conv2d(kernel=kernel):
            return rf"{bound(_param(kernel), 2)} \ast {bound(x, 2)}", 1
        case Kron(a=a, side=side):
            pair = (_param(a), x) if side == "left" else (x, _param(a))
            return rf"{bound(pair[0], 1)} \otimes {bound(pair[1], 2)}", 1


# --- composition of texts ------------------------------------------------------------------------------


def _picked(x: Text, index: IntArray, source: Shape) -> str:
    """Entries of x: as slices where they are, otherwise their number."""
    if index.size and (index < 0).any():
        return rf"\operatorname{{place}}({x[0]})"
    if len(source) == 2 and np.array_equal(index, np.arange(min(source)) * (source[1] + 1)):
        return rf"\operatorname{{diag}}({x[0]})"
    ranges = slices(index, source) if index.size else None
    return rf"{bound(x, 2)}_{{[{','.join(ranges) if ranges is not None else index.size}]}}"


def _summed(x: Text, axes: Sequence[int], shape: Shape) -> Text:
    """Of all entries, of the rows or columns of a matrix, or along other axes."""
    if len(axes) == len(shape) or (len(shape) == 2 and tuple(axes) == (0,)):
        return rf"\mathbf 1^\top {bound(x, 1)}", 1
    return (rf"{bound(x, 2)}\,\mathbf 1", 1) if len(shape) == 2 else (rf"\operatorname{{sum}}({x[0]})", 2)


def _product_of_all(outer: LinearMap, part: LinearMap) -> bool:
    """Whether `part` and then `outer` are an inner product: all entries times d, summed."""
    whole = isinstance(outer, Sum) and len(outer.axes) == len(outer.shape_in)
    return whole and isinstance(part, Diagonal) and int(np.prod(part.d.shape)) > 1


def _inner(part: LinearMap, x: Text) -> Text:
    """dᵀx, of matrices ⟨d, x⟩; the sign of d in front."""
    assert isinstance(part, Diagonal), "chosen by `_product_of_all`"
    d = _param(part.d)
    minus = d[0].startswith("-") and d[1] == 1
    sign, bare = ("-", _negative(d)) if minus else ("", d)
    if len(part.shape_in) > 1:
        return rf"{sign}\langle {bare[0]}, {x[0]} \rangle", 1
    return rf"{sign}{bound(bare, 2)}^\top {bound(x, 2)}", 1


def _added(pieces: list[Text]) -> Text:
    out, level = pieces[0]
    for words, _ in pieces[1:]:
        out, level = (f"{out} - {words[1:]}" if words.startswith("-") else f"{out} + {words}"), 0
    return out, level


def _negative(x: Text) -> Text:
    if x[0].startswith("-") and x[1] == 1:
        return _opened(x[0][1:])
    return f"-{bound(x, 1)}", 1


def _opened(words: str) -> Text:
    """Without the parentheses around all of it."""
    if words.startswith("(") and words.endswith(")"):
        depths = [words[:k].count("(") - words[:k].count(")") for k in range(1, len(words))]
        if min(depths) > 0:
            return words[1:-1], 0
    return words, 1


def _times(a: Text, sign: str, b: Text) -> Text:
    for one, other in ((a, b), (b, a)):
        if one == ONE:
            return other
        if one[0] == "-1":
            return _negative(other)
    return f"{bound(a, 1)}{sign}{bound(b, 2 if b[0].startswith('-') else 1)}", 1
