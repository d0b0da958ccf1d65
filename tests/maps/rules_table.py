"""A table of operations on parameters: our node and CVXPY's expression of the same name, side by side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cvxpy as cp
import numpy as np
import numpy.typing as npt
from cvxpy.atoms.affine import wraps
from cvxpy.atoms.affine.promote import promote
from cvxpy.atoms.elementwise import hyperbolic, trig
from cvxpy.atoms.elementwise.normcdf import normcdf

from opteq_cvx.ir.frozen import FrozenDict, Shape, freeze_index
from opteq_cvx.ir.param import Apply, Leaf, ParamExpr, Stage

Draw = Callable[[np.random.Generator, Shape], npt.NDArray[np.float64]]


def normal(rng: np.random.Generator, shape: Shape) -> npt.NDArray[np.float64]:
    """Any real values, away from 0 (kinks) and from each other."""
    raw = rng.standard_normal(shape)
    return np.asarray(raw + 0.2 * np.sign(raw))


def positive(rng: np.random.Generator, shape: Shape) -> npt.NDArray[np.float64]:
    """Positive values."""
    return rng.uniform(0.3, 2.0, shape)


def small(rng: np.random.Generator, shape: Shape) -> npt.NDArray[np.float64]:
    """Values in (0, 0.3)."""
    return rng.uniform(0.02, 0.3, shape)


def symmetric(rng: np.random.Generator, shape: Shape) -> npt.NDArray[np.float64]:
    """Symmetric matrices."""
    raw = rng.standard_normal(shape)
    return np.asarray(raw + np.swapaxes(raw, -1, -2))


def definite(rng: np.random.Generator, shape: Shape) -> npt.NDArray[np.float64]:
    """Positive definite matrices with distinct eigenvalues."""
    raw = rng.standard_normal(shape)
    return np.asarray(raw @ np.swapaxes(raw, -1, -2) + 0.5 * np.eye(shape[-1]))


def density(rng: np.random.Generator, shape: Shape) -> npt.NDArray[np.float64]:
    """Positive definite matrices of trace 1: CVXPY's value of quantum_rel_entr normalizes any other."""
    raw = definite(rng, shape)
    return np.asarray(raw / np.trace(raw))


FLAGS: Mapping[Draw, Mapping[str, bool]] = {
    symmetric: {"symmetric": True},
    definite: {"PSD": True},
    density: {"PSD": True},
    positive: {"nonneg": True},
    small: {"nonneg": True},
}


@dataclass(frozen=True)
class Row:
    """One operation at one choice of shapes and attributes."""

    op: str
    shapes: tuple[Shape, ...]
    reference: Callable[..., cp.Expression]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    draw: tuple[Draw, ...] = (normal,)
    smooth: bool = True

    @property
    def draws(self) -> tuple[Draw, ...]:
        """One draw per argument; the last one repeats."""
        return (*self.draw, *self.draw[-1:] * (len(self.shapes) - len(self.draw)))

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The arguments."""
        return tuple(Leaf(f"p{i}", shape, Stage.INPUT) for i, shape in enumerate(self.shapes))

    def parameters(self) -> list[cp.Parameter]:
        """The arguments as CVXPY parameters, with the attributes that their values have."""
        return [cp.Parameter(s, **FLAGS.get(d, {})) for s, d in zip(self.shapes, self.draws, strict=True)]

    def node(self) -> ParamExpr:
        """Our expression; its shape is CVXPY's."""
        shape = self.reference(*self.parameters()).shape
        return Apply(self.op, self.leaves, shape, FrozenDict(self.attrs))

    @property
    def title(self) -> str:
        """A name for the test."""
        attrs = " ".join(f"{k}={v}" for k, v in self.attrs.items() if k != "index")
        return f"{self.op} {'x'.join(map(str, self.shapes))} {attrs}".strip()


def reductions(
    op: str, f: Callable[..., cp.Expression], draw: Draw = normal, axes: bool = True, smooth: bool = True
) -> list[Row]:
    """A reduction over everything, over one axis, kept, and over two of three."""
    rows = [
        Row(op, ((3, 2),), f, draw=(draw,), smooth=smooth),
        Row(op, ((4,),), f, draw=(draw,), smooth=smooth),
    ]
    for attrs in ({"axis": 0}, {"axis": 1, "keepdims": True}, {"keepdims": True}) if axes else ():
        rows.append(Row(op, ((3, 2),), lambda x, a=attrs: f(x, **a), attrs, (draw,), smooth))
    return rows


def over_pairs(op: str, f: Callable[..., cp.Expression], draw: Draw = normal) -> list[Row]:
    """A reduction over two axes of three."""
    both = ({"axis": (0, 2)}, {"axis": (0, 1), "keepdims": True})
    return [Row(op, ((2, 3, 2),), lambda x, a=attrs: f(x, **a), attrs, (draw,)) for attrs in both]


def unary(
    op: str, f: Callable[..., cp.Expression], draw: Draw = normal, smooth: bool = True, **attrs: Any
) -> list[Row]:
    """An elementwise function of a scalar and of a matrix."""
    return [Row(op, (shape,), f, attrs, (draw,), smooth) for shape in ((), (2, 3))]


def _triangle(x: cp.Expression, **_: Any) -> cp.Expression:
    return cp.vec_to_upper_tri(x)


INDEX = freeze_index([[5, 0], [2, 2]])

ROWS: tuple[Row, ...] = (
    # arithmetic and products
    Row("add", ((2, 3), (), (3,)), lambda a, b, c: a + b + c),
    Row("add", ((3, 1), (4,)), lambda a, b: a + b),
    *unary("neg", lambda x: -x),
    Row("sub", ((2, 3), (3,)), lambda a, b: a - b),
    Row("multiply", ((2, 3), ()), cp.multiply),
    Row("multiply", ((2, 1), (3,)), cp.multiply),
    Row("divide", ((2, 3), ()), lambda a, b: a / b, draw=(normal, positive)),
    Row("divide", ((3,), (3,)), lambda a, b: a / b, draw=(normal, positive)),
    Row("matmul", ((3,), (3,)), lambda a, b: a @ b),
    Row("matmul", ((2, 3), (3,)), lambda a, b: a @ b),
    Row("matmul", ((3,), (3, 2)), lambda a, b: a @ b),
    Row("matmul", ((2, 3), (3, 4)), lambda a, b: a @ b),
    Row("matmul", ((5, 2, 3), (3, 4)), lambda a, b: a @ b),
    Row("matmul", ((2, 3), (5, 3, 4)), lambda a, b: a @ b),
    Row("matmul", ((5, 2, 3), (5, 3, 4)), lambda a, b: a @ b),
    Row("matmul", ((3,), (5, 3, 4)), lambda a, b: a @ b),
    Row("matmul", ((5, 2, 3), (3,)), lambda a, b: a @ b),
    Row("kron", ((2, 3), (1, 2)), cp.kron),
    Row("conv", ((3,), (4,)), cp.convolve),
    Row("convolve", ((4,), (2,)), cp.convolve),
    Row("outer", ((3,), (2,)), cp.outer),
    Row("vdot", ((3, 2), (3, 2)), cp.vdot),
    Row("scalar_product", ((3,), (3,)), cp.scalar_product),
    # shapes
    *(
        Row(name, ((3, 3),), getattr(wraps, name), draw=(definite,))
        for name in ("psd_wrap", "nsd_wrap", "symmetric_wrap", "hermitian_wrap")
    ),
    *(row for name in ("nonneg_wrap", "nonpos_wrap") for row in unary(name, getattr(wraps, name))),
    Row("skew_symmetric_wrap", ((3, 3),), wraps.skew_symmetric_wrap),
    Row("wrap", ((3, 3),), cp.psd_wrap, draw=(definite,)),
    *unary("real", cp.real),
    *unary("conj", cp.conj),
    Row("imag", ((2, 3),), cp.imag, smooth=False),
    Row("reshape", ((2, 3),), lambda x: cp.reshape(x, (3, 2), order="F"), {"order": "F"}),
    Row("reshape", ((2, 3),), lambda x: cp.reshape(x, (3, 2), order="C"), {"order": "C"}),
    Row("reshape", ((6,),), lambda x: cp.reshape(x, (1, 2, 3), order="F"), {"order": "F"}),
    Row("vec", ((2, 3),), lambda x: cp.vec(x, order="F"), {"order": "F"}),
    Row("squeeze", ((1, 3, 1),), cp.squeeze),
    Row("broadcast_to", ((3, 1),), lambda x: cp.broadcast_to(x, (2, 3, 4))),
    Row("promote", ((),), lambda x: promote(x, (2, 3))),
    Row("transpose", ((2, 3),), lambda x: x.T),
    Row("transpose", ((2, 3, 4),), lambda x: cp.transpose(x, (2, 0, 1)), {"axes": (2, 0, 1)}),
    Row("transpose", ((3,),), lambda x: x.T, {"axes": (0,)}),
    Row(
        "gather",
        ((2, 3),),
        lambda x: cp.reshape(cp.vec(x, order="C")[[5, 0, 2, 2]], (2, 2), order="C"),
        {"index": INDEX},
    ),
    Row("gather", ((2, 3),), lambda x: x[:, 1], {"index": freeze_index([1, 4])}),
    Row("gather", ((4,),), lambda x: x[2], {"index": freeze_index(2)}),
    Row("gather", ((3,),), lambda x: cp.hstack([0, x, 0]), {"index": freeze_index([-1, 0, 1, 2, -1])}),
    Row("concatenate", ((2, 3), (1, 3)), lambda a, b: cp.concatenate([a, b], axis=0), {"axis": 0}),
    Row("concatenate", ((2, 3), (2, 1)), lambda a, b: cp.concatenate([a, b], axis=1), {"axis": 1}),
    Row("concatenate", ((2, 3), (2, 1)), lambda a, b: cp.concatenate([a, b], axis=None), {"axis": None}),
    Row("hstack", ((), (3,), ()), lambda *a: cp.hstack(a)),
    Row("hstack", ((2, 3), (2, 1)), lambda *a: cp.hstack(a)),
    Row("vstack", ((3,), (2, 3)), lambda *a: cp.vstack(a)),
    Row("vstack", ((), ()), lambda *a: cp.vstack(a)),
    Row("stack", ((2, 3), (2, 3)), lambda *a: cp.stack(a, axis=1), {"axis": 1}),
    Row("diag_vec", ((3,),), lambda x: cp.diag(x)),
    Row("diag_vec", ((3,),), lambda x: cp.diag(x, k=-1), {"k": -1}),
    Row("diag_mat", ((3, 3),), lambda x: cp.diag(x)),
    Row("diag_mat", ((3, 3),), lambda x: cp.diag(x, k=1), {"k": 1}),
    Row("trace", ((3, 3),), cp.trace),
    Row("upper_tri", ((3, 3),), cp.upper_tri),
    Row("vec_to_upper_tri", ((6,),), _triangle),
    Row("vec_to_upper_tri", ((3, 1),), lambda x: cp.vec_to_upper_tri(x, strict=True), {"strict": True}),
    # elementwise
    *unary("abs", cp.abs),
    *unary("exp", cp.exp),
    *unary("log", cp.log, positive),
    *unary("log1p", cp.log1p, positive),
    *unary("sqrt", cp.sqrt, positive),
    *unary("square", cp.square),
    *unary("inv_pos", cp.inv_pos, positive),
    *unary("pos", cp.pos),
    *unary("entr", cp.entr, positive),
    *unary("logistic", cp.logistic),
    *unary("xexp", cp.xexp, positive),
    *unary("sign", cp.sign, smooth=False),
    *unary("ceil", cp.ceil, smooth=False),
    *unary("floor", cp.floor, smooth=False),
    *unary("one_minus_pos", cp.one_minus_pos, small),
    *unary("sin", trig.sin),
    *unary("cos", trig.cos),
    *unary("tan", trig.tan, small),
    *unary("sinh", hyperbolic.sinh),
    *unary("tanh", hyperbolic.tanh),
    *unary("asinh", hyperbolic.asinh),
    *unary("atanh", hyperbolic.atanh, small),
    *unary("normcdf", normcdf),
    *unary("power", lambda x: cp.power(x, 3), p=3.0),
    *unary("power", lambda x: cp.power(x, 1.5), positive, p=1.5),
    *unary("power", lambda x: cp.power(x, -2), positive, p=-2.0),
    *unary("huber", cp.huber),
    *unary("huber", lambda x: cp.huber(x, 0.4), M=0.4),
    Row("huber", ((2, 3), ()), cp.huber, draw=(normal, positive)),
    Row("maximum", ((2, 3), (), (3,)), cp.maximum),
    Row("minimum", ((2, 3), (), (3,)), cp.minimum),
    Row("kl_div", ((2, 3), ()), cp.kl_div, draw=(positive,)),
    Row("rel_entr", ((), (3,)), cp.rel_entr, draw=(positive,)),
    Row("diff_pos", ((3,), (3,)), cp.diff_pos, draw=(positive, small)),
    # reductions
    *reductions("sum", cp.sum),
    *over_pairs("sum", cp.sum),
    *reductions("mean", cp.mean),
    *reductions("max", cp.max),
    *over_pairs("max", cp.max),
    *reductions("min", cp.min),
    *reductions("ptp", cp.ptp),
    *reductions("prod", cp.prod, positive),
    *reductions("norm1", cp.norm1),
    *reductions("norm_inf", cp.norm_inf),
    *reductions("norm2", lambda x: cp.norm2(cp.vec(x, order="F")), axes=False),
    *reductions("pnorm", cp.pnorm),
    *(Row("pnorm", ((3, 2),), lambda x, p=p: cp.pnorm(x, p), {"p": p}) for p in (3, 1.5)),
    *(Row("pnorm", ((4,),), lambda x, p=p: cp.pnorm(x, p), {"p": p}, (positive,)) for p in (0.5, -1.0)),
    Row("norm", ((4,),), lambda x: cp.norm(x, 1), {"p": 1}),
    Row("norm", ((4,),), lambda x: cp.norm(x, "inf"), {"p": "inf"}),
    Row("norm", ((3, 2),), lambda x: cp.norm(x, "fro"), {"p": "fro"}),
    Row("norm", ((3, 2),), lambda x: cp.norm(x, 2, axis=1), {"p": 2, "axis": 1}),
    *reductions("sum_squares", cp.sum_squares),
    *reductions("log_sum_exp", cp.log_sum_exp),
    *over_pairs("log_sum_exp", cp.log_sum_exp),
    *reductions("harmonic_mean", cp.harmonic_mean, positive, axes=False),
    Row("inv_prod", ((4,),), cp.inv_prod, draw=(positive,)),
    *(Row("sum_largest", ((2, 3),), lambda x, k=k: cp.sum_largest(x, k), {"k": float(k)}) for k in (1, 2, 2.5, 9)),
    Row("sum_largest", ((2, 3),), lambda x: cp.sum_largest(x, 2, axis=1), {"k": 2.0, "axis": 1}),
    Row(
        "sum_largest",
        ((2, 3),),
        lambda x: cp.sum_largest(x, 1.5, axis=0, keepdims=True),
        {"k": 1.5, "axis": 0, "keepdims": True},
    ),
    Row("sum_smallest", ((2, 3),), lambda x: cp.sum_smallest(x, 2), {"k": 2.0}),
    Row("quad_over_lin", ((2, 3), ()), cp.quad_over_lin, draw=(normal, positive)),
    Row(
        "quad_over_lin",
        ((2, 3), ()),
        lambda x, y: cp.quad_over_lin(x, y, axis=0),
        {"axis": 0},
        (normal, positive),
    ),
    *reductions("geo_mean", cp.geo_mean, positive, axes=False),
    Row(
        "geo_mean",
        ((3,),),
        lambda x: cp.geo_mean(x, [1, 0, 3], approx=False),
        {"p": (0.25, 0.0, 0.75)},
        (positive,),
    ),
    Row(
        "geo_mean",
        ((2, 2),),
        lambda x: cp.geo_mean(x, [1, 2, 3, 4], approx=False),
        {"p": (1, 2, 3, 4)},
        (positive,),
    ),
    Row("geo_mean", ((2, 3),), lambda x: cp.geo_mean(x, [1, 2], axis=0), {"p": (1, 2), "axis": 0}, (positive,)),
    Row("cumsum", ((2, 3),), lambda x: cp.cumsum(x, axis=1), {"axis": 1}),
    Row("cumsum", ((2, 3),), lambda x: cp.cumsum(x, axis=None), {"axis": None}),
    Row("cumprod", ((2, 3),), lambda x: cp.cumprod(x, axis=0), {"axis": 0}, (positive,)),
    Row("cumprod", ((2, 3),), lambda x: cp.cumprod(x, axis=None), {"axis": None}, (positive,)),
    Row("cummax", ((2, 3),), lambda x: cp.cummax(x, axis=1), {"axis": 1}),
    Row("dotsort", ((4,), (2,)), cp.dotsort),
    Row("dotsort", ((2, 2), (4,)), cp.dotsort),
    Row("length", ((4,),), cp.length, smooth=False),
    # matrices
    Row("quad_form", ((3,), (3, 3)), lambda x, p: cp.quad_form(x, p), draw=(normal, definite)),
    Row("quad_form", ((3, 1), (3, 3)), lambda x, p: cp.quad_form(x, p), draw=(normal, definite)),
    Row("matrix_frac", ((3,), (3, 3)), lambda x, p: cp.matrix_frac(x, p), draw=(normal, definite)),
    Row("matrix_frac", ((3, 2), (3, 3)), lambda x, p: cp.matrix_frac(x, p), draw=(normal, definite)),
    Row("log_det", ((3, 3),), cp.log_det, draw=(definite,)),
    Row("tr_inv", ((3, 3),), cp.tr_inv, draw=(definite,)),
    Row("norm_nuc", ((3, 2),), lambda x: cp.norm(x, "nuc")),
    Row("normNuc", ((2, 3),), lambda x: cp.norm(x, "nuc")),
    Row("sigma_max", ((3, 2),), cp.sigma_max),
    Row("lambda_max", ((3, 3),), cp.lambda_max, draw=(symmetric,)),
    Row("lambda_max", ((2, 3, 3),), cp.lambda_max, draw=(symmetric,)),
    Row("lambda_min", ((3, 3),), cp.lambda_min, draw=(symmetric,)),
    *(
        Row(
            "lambda_sum_largest",
            ((3, 3),),
            lambda x, k=k: cp.lambda_sum_largest(x, k),
            {"k": float(k)},
            (symmetric,),
        )
        for k in (2, 1.5)
    ),
    Row("lambda_sum_smallest", ((3, 3),), lambda x: cp.lambda_sum_smallest(x, 2), {"k": 2.0}, (symmetric,)),
    Row("gen_lambda_max", ((3, 3), (3, 3)), cp.gen_lambda_max, draw=(symmetric, definite)),
    Row("condition_number", ((3, 3),), cp.condition_number, draw=(definite,)),
    Row("pf_eigenvalue", ((3, 3),), cp.pf_eigenvalue, draw=(positive,)),
    Row("von_neumann_entr", ((3, 3),), cp.von_neumann_entr, draw=(definite,)),
    Row("quantum_rel_entr", ((3, 3), (3, 3)), cp.quantum_rel_entr, draw=(density, definite)),
    Row("eye_minus_inv", ((3, 3),), cp.eye_minus_inv, draw=(small,)),
)
