"""Node: a neutral expression tree between CVXPY and the atoms, so that atoms match without knowing CVXPY.

The frontend makes Nodes from CVXPY expressions: what depends on parameters only arrives as one leaf with
`param`, what is affine in the variables as one leaf with `affine`; only the rest keeps an `op` and `args`.
Operation names follow CVXPY's functions, after normalization to few spellings: sums of elementwise
convex functions are `sum` of the elementwise op (`norm1(x)` is `sum(abs(x))`, `sum_squares(x)` is
`sum(square(x))`), concave functions are negated convex ones (`log(x)` is `neg(neg_log(x))`, `minimum` is
`neg(maximum(neg ...))`). Linear operations on non-affine arguments keep their map in `attrs["map"]`
(op "linear").

Operations and their attributes, as the frontend makes them:

* structure: "add", "neg", "linear" {map}, "sum" {axes, keepdims, map};
* elementwise, all arguments broadcast to the node's shape: abs, square, power {p: p < 0 or p > 1},
  neg_power {p: 0 < p < 1}, neg_log, neg_entr, exp, logistic, xexp, huber (x, M), kl_div (x, y),
  rel_entr (x, y), maximum (x1, x2, ...);
* reducing, with `axes` (the reduced axes of the first argument, negative, sorted) and `keepdims`: max, norm2,
  norm_inf, pnorm {p}, neg_pnorm {p < 1}, log_sum_exp, sum_largest {k}, neg_geo_mean {p: weights that sum to
  1, Fortran order}, inv_prod {p: exponents, Fortran order}, quad_over_lin (x, y) with y affine;
* of the whole argument: quad_form (x, P) with x a vector, matrix_frac (X, P), dotsort (x, w), lambda_max,
  lambda_sum_largest {k}, sigma_max, norm_nuc, neg_log_det, tr_inv, neg_von_neumann_entr; cummax {axis};
  whatever else CVXPY has keeps its name;
* constraints: "leq" (f, rhs) means f <= rhs; sets of one argument whose last axis joins their parts: "soc"
  [t, x], "exp_cone" (x, y, z), "pow_cone" (x, y, z) with a second argument alpha (trailing axis 1),
  "pow_cone_nd" [w, z] with alpha; "psd" and "symmetric" of matrices on the last two axes.
"""

from dataclasses import dataclass

from opteq_cvx.ir.frozen import EMPTY, Frozen, FrozenDict, Shape
from opteq_cvx.ir.param import ParamExpr
from opteq_cvx.ir.program import Affine


@dataclass(frozen=True, slots=True, eq=False)
class Node(Frozen):
    """One expression: a parameter leaf, an affine leaf, or an operation on nodes."""

    op: str  # "param", "affine", or a function name
    args: tuple["Node", ...]
    shape: Shape
    text: str
    attrs: FrozenDict = EMPTY
    param: ParamExpr | None = None
    affine: Affine | None = None
