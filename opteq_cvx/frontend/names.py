"""The one table from CVXPY's classes to our operation names, with what an atom carries beside its arguments.

Class names are not the API names and they move between versions (`norm(x)` is `PnormApprox`, `sum_squares` is
`quad_over_lin`), so rows are text, resolved once: a row that CVXPY lacks is skipped, and a test says so.
An operation is named, and its attributes are keyed, as the CVXPY function that makes the atom.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.atoms.affine.add_expr import AddExpression
from cvxpy.atoms.affine.affine_atom import AffAtom
from cvxpy.atoms.cumprod import cumprod
from cvxpy.constraints.exponential import ExpCone, OpRelEntrConeQuad, RelEntrConeQuad
from cvxpy.constraints.nonpos import Inequality, NonNeg, NonPos
from cvxpy.constraints.power import PowCone3D, PowConeND
from cvxpy.constraints.psd import PSD
from cvxpy.constraints.second_order import SOC
from cvxpy.constraints.zero import Equality, Zero

Attrs = dict[str, Any]


def _none(atom: Any) -> Attrs:
    return {}


def _axis(atom: Any) -> Attrs:
    return {"axis": atom.axis, "keepdims": bool(atom.keepdims)}


def _axis_only(atom: Any) -> Attrs:
    return {"axis": atom.axis}


def _offset(atom: Any) -> Attrs:
    return {"k": int(atom.k)}


def _largest(atom: Any) -> Attrs:
    return {"k": float(atom.k)}


def _largest_axis(atom: Any) -> Attrs:
    return {"k": float(atom.k), **_axis(atom)}


def _reshape(atom: Any) -> Attrs:
    return {"order": atom.order}


def _transpose(atom: Any) -> Attrs:
    rank = len(atom.args[0].shape)
    axes = tuple(reversed(range(rank))) if atom.axes is None else tuple(int(a) % rank for a in atom.axes)
    return {"axes": axes}


def _positions(atom: Any, key: Any) -> Attrs:
    shape = atom.args[0].shape
    positions = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    return {"index": np.asarray(positions[key], dtype=np.int64).reshape(atom.shape)}


def _index(atom: Any) -> Attrs:
    return _positions(atom, atom._orig_key)


def _special_index(atom: Any) -> Attrs:
    return _positions(atom, atom.key)


def _power(atom: Any) -> Attrs:
    return {"p": float(atom.p.value)} if isinstance(atom.p, cp.Constant) else {}


def _pnorm(atom: Any) -> Attrs:
    return {"p": float(atom.p), **_axis(atom)}


def _linear(atom: Any) -> Attrs:
    """How a convolution follows from its kernel."""
    return {"linear": atom.linear}


def _activation(atom: Any) -> Attrs:
    return {"name": atom.activation, "options": dict(atom.options), "half": atom.half}


def _geo_mean(atom: Any) -> Attrs:
    weights = np.zeros(atom._keep.shape)
    weights[atom._keep] = [float(w) for w in atom.w]
    return {"p": tuple(weights.tolist()), **_axis(atom)}


def _whole(atom: Any) -> Attrs:
    """A function with data of its own is kept as it is, for CVXPY's canonicalization."""
    return {"atom": atom}


def _exponent(atom: Any) -> tuple[cp.Expression, ...]:
    return () if isinstance(atom.p, cp.Constant) else (atom.p,)


def _hidden_none(atom: Any) -> tuple[cp.Expression, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the table: our name, the static attributes, and expressions that hide in the atom's data.

    Hidden expressions (huber's M) follow the arguments when the atom becomes an operation.
    """

    op: str
    attrs: Callable[[Any], Attrs] = _none
    hidden: Callable[[Any], tuple[cp.Expression, ...]] = _hidden_none


_Row = tuple[str, str, Entry]


def _rows(module: str, names: Mapping[str, Entry | str]) -> list[_Row]:
    return [(module, cls, Entry(e) if isinstance(e, str) else e) for cls, e in names.items()]


_AFFINE = "cvxpy.atoms.affine."
_ELEMENTWISE = "cvxpy.atoms.elementwise."
_WRAPS = ("hermitian", "nonneg", "nonpos", "nsd", "psd", "skew_symmetric", "symmetric")

ROWS: tuple[_Row, ...] = (
    *_rows(_AFFINE + "add_expr", {"AddExpression": "add"}),
    *_rows(
        _AFFINE + "binary_operators",
        {"DivExpression": "divide", "MulExpression": "matmul", "multiply": "multiply"},
    ),
    *_rows(_AFFINE + "broadcast_to", {"broadcast_to": "broadcast_to"}),
    *_rows(_AFFINE + "concatenate", {"Concatenate": Entry("concatenate", _axis_only)}),
    *_rows(_AFFINE + "conj", {"conj": "conj"}),
    *_rows(_AFFINE + "conv", {"conv": "conv", "convolve": "convolve"}),
    *_rows(_AFFINE + "cumsum", {"cumsum": Entry("cumsum", _axis_only)}),
    *_rows(_AFFINE + "diag", {"diag_mat": Entry("diag_mat", _offset), "diag_vec": Entry("diag_vec", _offset)}),
    *_rows(_AFFINE + "hstack", {"Hstack": "hstack"}),
    *_rows(_AFFINE + "imag", {"imag": "imag"}),
    *_rows(
        _AFFINE + "index",
        {"index": Entry("gather", _index), "special_index": Entry("gather", _special_index)},
    ),
    *_rows(_AFFINE + "kron", {"kron": "kron"}),
    *_rows(_AFFINE + "promote", {"Promote": "promote"}),
    *_rows(_AFFINE + "real", {"real": "real"}),
    *_rows(_AFFINE + "reshape", {"reshape": Entry("reshape", _reshape)}),
    *_rows(_AFFINE + "sum", {"Sum": Entry("sum", _axis)}),
    *_rows(_AFFINE + "trace", {"Trace": "trace"}),
    *_rows(_AFFINE + "transpose", {"transpose": Entry("transpose", _transpose)}),
    *_rows(_AFFINE + "unary_operators", {"NegExpression": "neg"}),
    *_rows(_AFFINE + "upper_tri", {"upper_tri": "upper_tri"}),
    *_rows(_AFFINE + "vstack", {"Vstack": "vstack"}),
    *_rows(_AFFINE + "wraps", {"Wrap": "wrap", **{f"{w}_wrap": "wrap" for w in _WRAPS}}),
    *_rows(_ELEMENTWISE + "abs", {"abs": "abs"}),
    *_rows(_ELEMENTWISE + "ceil", {"ceil": "ceil", "floor": "floor"}),
    *_rows(_ELEMENTWISE + "entr", {"entr": "entr"}),
    *_rows(_ELEMENTWISE + "exp", {"exp": "exp"}),
    *_rows(_ELEMENTWISE + "huber", {"huber": Entry("huber", hidden=lambda atom: (atom.M,))}),
    *_rows(_ELEMENTWISE + "hyperbolic", {name: name for name in ("asinh", "atanh", "sinh", "tanh")}),
    *_rows(_ELEMENTWISE + "kl_div", {"kl_div": "kl_div"}),
    *_rows(_ELEMENTWISE + "log", {"log": "log"}),
    *_rows(_ELEMENTWISE + "log1p", {"log1p": "log1p"}),
    *_rows(_ELEMENTWISE + "logic", {"And": "and", "Not": "not", "Or": "or", "Xor": "xor"}),
    *_rows(_ELEMENTWISE + "logistic", {"logistic": "logistic"}),
    *_rows(_ELEMENTWISE + "maximum", {"maximum": "maximum"}),
    *_rows(_ELEMENTWISE + "minimum", {"minimum": "minimum"}),
    *_rows(_ELEMENTWISE + "normcdf", {"normcdf": "normcdf"}),
    *_rows(_ELEMENTWISE + "power", {c: Entry("power", _power, _exponent) for c in ("Power", "PowerApprox")}),
    *_rows(_ELEMENTWISE + "rel_entr", {"rel_entr": "rel_entr"}),
    *_rows(_ELEMENTWISE + "trig", {"cos": "cos", "sin": "sin", "tan": "tan"}),
    *_rows(_ELEMENTWISE + "xexp", {"xexp": "xexp"}),
    *_rows("cvxpy.atoms.condition_number", {"condition_number": "condition_number"}),
    *_rows("cvxpy.atoms.cummax", {"cummax": Entry("cummax", _axis_only)}),
    *_rows("cvxpy.atoms.cumprod", {"cumprod": Entry("cumprod", _axis_only)}),
    *_rows("cvxpy.atoms.dist_ratio", {"dist_ratio": "dist_ratio"}),
    *_rows("cvxpy.atoms.dotsort", {"dotsort": "dotsort"}),
    *_rows("cvxpy.atoms.eye_minus_inv", {"eye_minus_inv": "eye_minus_inv"}),
    *_rows("cvxpy.atoms.gen_lambda_max", {"gen_lambda_max": "gen_lambda_max"}),
    *_rows("cvxpy.atoms.geo_mean", {c: Entry("geo_mean", _geo_mean) for c in ("GeoMean", "GeoMeanApprox")}),
    *_rows("cvxpy.atoms.gmatmul", {"gmatmul": Entry("gmatmul", hidden=lambda atom: (atom.A,))}),
    *_rows("cvxpy.atoms.lambda_max", {"lambda_max": "lambda_max"}),
    *_rows("cvxpy.atoms.lambda_sum_largest", {"lambda_sum_largest": Entry("lambda_sum_largest", _largest)}),
    *_rows("cvxpy.atoms.length", {"length": "length"}),
    *_rows("cvxpy.atoms.log_det", {"log_det": "log_det"}),
    *_rows("cvxpy.atoms.log_sum_exp", {"log_sum_exp": Entry("log_sum_exp", _axis)}),
    *_rows("cvxpy.atoms.matrix_frac", {"MatrixFrac": "matrix_frac"}),
    *_rows("cvxpy.atoms.max", {"max": Entry("max", _axis)}),
    *_rows("cvxpy.atoms.min", {"min": Entry("min", _axis)}),
    *_rows("cvxpy.atoms.norm1", {"norm1": Entry("norm1", _axis)}),
    *_rows("cvxpy.atoms.norm_inf", {"norm_inf": Entry("norm_inf", _axis)}),
    *_rows("cvxpy.atoms.norm_nuc", {"normNuc": "norm_nuc"}),
    *_rows("cvxpy.atoms.one_minus_pos", {"one_minus_pos": "one_minus_pos"}),
    *_rows("cvxpy.atoms.perspective", {"perspective": Entry("perspective", _whole)}),
    *_rows("cvxpy.atoms.pf_eigenvalue", {"pf_eigenvalue": "pf_eigenvalue"}),
    *_rows("cvxpy.atoms.pnorm", {c: Entry("pnorm", _pnorm) for c in ("Pnorm", "PnormApprox")}),
    *_rows("cvxpy.atoms.prod", {"Prod": Entry("prod", _axis)}),
    *_rows("cvxpy.atoms.quad_form", {"QuadForm": "quad_form", "SymbolicQuadForm": "symbolic_quad_form"}),
    *_rows("cvxpy.atoms.quad_over_lin", {"quad_over_lin": Entry("quad_over_lin", _axis)}),
    *_rows(
        "opteq_cvx.declare.convolution",
        {"Convolution": Entry("conv2d", _linear), "ConvolutionMatrix": Entry("conv2d_matrix", _linear)},
    ),
    *_rows("opteq_cvx.declare.activation", {"ActivationAtom": Entry("activation", _activation)}),
    *_rows("cvxpy.atoms.quantum_rel_entr", {"quantum_rel_entr": "quantum_rel_entr"}),
    *_rows("cvxpy.atoms.sigma_max", {"sigma_max": "sigma_max"}),
    *_rows("cvxpy.atoms.sign", {"sign": "sign"}),
    *_rows("cvxpy.atoms.sum_largest", {"sum_largest": Entry("sum_largest", _largest_axis)}),
    *_rows("cvxpy.atoms.suppfunc", {"SuppFuncAtom": Entry("suppfunc", _whole)}),
    *_rows("cvxpy.atoms.tr_inv", {"tr_inv": "tr_inv"}),
    *_rows("cvxpy.atoms.von_neumann_entr", {"von_neumann_entr": "von_neumann_entr"}),
)


def _resolve() -> tuple[dict[type, Entry], tuple[str, ...]]:
    table: dict[type, Entry] = {}
    missing: list[str] = []
    for module, name, entry in ROWS:
        try:
            table[vars(import_module(module))[name]] = entry
        except (ImportError, KeyError):
            missing.append(f"{module}.{name}")
    return table, tuple(missing)


TABLE, MISSING = _resolve()
"""TABLE: class → Entry; MISSING: rows that the installed CVXPY lacks (empty in a supported version)."""


def entry(expr: cp.Expression) -> Entry | None:
    """The row of an expression's class; None for leaves and for classes that CVXPY does not ship."""
    return TABLE.get(type(expr))


def arguments(expr: Any) -> tuple[cp.Expression, ...]:
    """The arguments of an expression; none for a leaf."""
    return tuple(expr.args)


def hidden(expr: cp.Expression) -> tuple[cp.Expression, ...]:
    """The expressions in an atom's data rather than its arguments: huber's M, a parametric exponent."""
    row = entry(expr)
    return row.hidden(expr) if row is not None else ()


def is_linear_atom(expr: cp.Expression) -> bool:
    """Whether the atom is linear in its varying arguments, CVXPY's own or a user's affine atom."""
    return isinstance(expr, AffAtom) and not isinstance(expr, cumprod)


def addends(expr: cp.Expression) -> tuple[cp.Expression, ...]:
    """The summands that the user wrote, or the expression itself."""
    return tuple(expr.args) if isinstance(expr, AddExpression) else (expr,)


CONSTRAINTS: dict[type, str] = {
    Zero: "zero",
    Equality: "equality",
    NonPos: "nonpos",
    NonNeg: "nonneg",
    Inequality: "inequality",
    PSD: "psd",
    SOC: "soc",
    ExpCone: "exp",
    PowCone3D: "pow",
    PowConeND: "pow_nd",
    RelEntrConeQuad: "rel_entr",
    OpRelEntrConeQuad: "op_rel_entr",
}
"""Constraint class → kind, as `ir.Constraint` records it (subclasses of the power cones included)."""


def kind(constraint: cp.constraints.constraint.Constraint) -> str | None:
    """The kind of a constraint; None for one that no route covers."""
    return next((CONSTRAINTS[c] for c in type(constraint).__mro__ if c in CONSTRAINTS), None)
