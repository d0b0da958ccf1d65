"""F(x) ≤ c as the level set of a function that an atom knows, or of one weighted sum of its values.

A set with an atom of its own is read before this; sums of several functions take the conic route.
"""

from dataclasses import dataclass

from opteq_cvx.atoms.axes import kept
from opteq_cvx.frontend.peel import peel
from opteq_cvx.frontend.recognized import function_term, value_shape
from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import FrozenDict, Shape
from opteq_cvx.ir.param import Const, ParamExpr, const, neg
from opteq_cvx.ir.param import add as plus
from opteq_cvx.ir.program import Affine, Origin, Term
from opteq_cvx.ir.tree import Node

BOUNDED = frozenset(
    {
        "abs",
        "deadzone",
        "exp",
        "huber",
        "lambda_max",
        "lambda_sum_largest",
        "neg_log_det",
        "norm_nuc",
        "sigma_max",
        "tr_inv",
        "kl_div",
        "log_sum_exp",
        "logistic",
        "neg_entr",
        "neg_geo_mean",
        "neg_log",
        "neg_power",
        "norm2",
        "norm_inf",
        "pos",
        "power",
        "quad_over_lin",
        "rel_entr",
        "sorted_l1",
        "square",
        "square_pos",
        "sum_largest",
        "xexp",
    }
)
"""Functions whose level sets are found by a root: finite at their proxes, which are exact and cheap."""


@dataclass(frozen=True, slots=True)
class Total:
    """F: the term of f, the axes of its argument along which entries meet, and a constant part."""

    term: Term
    axes: tuple[int, ...]
    offset: ParamExpr


def sublevel_term(f: Node, bound: Affine, origin: Origin) -> Term | None:
    """f ≤ bound as one term; None where no atom knows f, or its prox does not fit."""
    total = _total(f, origin)
    if total is None or total.term.atom not in BOUNDED:
        return None
    term = total.term
    if isinstance(term.weight, Const) and (term.weight.dense() < 0).any():
        return None
    static = FrozenDict(f=term.atom, axes=total.axes, options=tuple(sorted(term.static.items())))
    data = dict(term.data) if term.weight is None else {**term.data, "weight": term.weight}
    if bound.parts:
        return None
    level = plus(act.spread(bound.offset, f.shape), neg(total.offset))
    data["level"] = act.reshape(act.spread(level, f.shape), kept(term.arg.shape, total.axes))
    return Term("level_set", term.arg, origin, None, static, FrozenDict(data))


def _total(f: Node, origin: Origin) -> Total | None:
    one = const(1.0)
    if f.shape == ():
        peeled = peel(f, one)
        if len(peeled.cores) != 1 or peeled.linear is not None:
            return None
        (core,) = peeled.cores
        term = function_term(core.node, core.weight, origin)
        if term is None:
            return None
        return Total(term, tuple(range(-len(term.arg.shape), 0)), peeled.offset)
    node = f.args[0] if f.op == "sum" else f
    term = function_term(node, one, origin)
    if term is None:
        return None
    event = term.arg.shape
    axes = reduced(event, value_shape(node.shape, term.arg, term.static))
    if f.op == "sum":
        if event[: len(node.shape)] != node.shape:
            return None
        axes = tuple(sorted({*axes, *(a + len(node.shape) - len(event) for a in f.attrs["axes"])}))
    return Total(term, axes, act.zeros(()))


def reduced(event: Shape, value: Shape) -> tuple[int, ...]:
    """The axes along which a function of this value reduces its argument."""
    return tuple(i - len(event) for i, n in enumerate(event) if value[i] != n)
