"""F(x) ≤ c as the level set of a function that an atom knows, or of one weighted sum of its values.

A set with an atom of its own is read before this; sums of several functions take the conic route.
"""

from dataclasses import dataclass

from opteq_cvx.atoms import Trait, atom
from opteq_cvx.atoms.axes import joining, kept
from opteq_cvx.atoms.bounded import OF_EIGENVALUES, OF_SINGULAR_VALUES
from opteq_cvx.frontend.peel import peel
from opteq_cvx.frontend.recognized import function_term, value_shape
from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.frozen import FrozenDict, Shape, size
from opteq_cvx.ir.linmap import Reshape
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
        "kl_div",
        "lambda_max",
        "lambda_sum_largest",
        "log_sum_exp",
        "logistic",
        "max",
        "neg_entr",
        "neg_geo_mean",
        "neg_log",
        "neg_log_det",
        "neg_power",
        "neg_von_neumann_entr",
        "norm2",
        "norm_inf",
        "norm_nuc",
        "pnorm",
        "pos",
        "power",
        "rel_entr",
        "sigma_max",
        "sorted_l1",
        "square",
        "square_pos",
        "sum_largest",
        "tr_inv",
        "xexp",
    }
)
"""Functions whose level sets and epigraphs are found by a root: finite at their proxes, which are exact.

Epigraphs of quadratic forms and those of quad_over_lin are one second-order cone each, which is cheaper, and the
epigraph of the square of one entry is one of three; level sets of quadratic forms are balls (`quadratic_form`).
Level sets of weighted squares are measured slower than cones too, and
epigraphs of p-norms, whose root would be one of roots.
"""


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
    if bound.parts and term.weight is not None and term.atom in (*OF_EIGENVALUES, *OF_SINGULAR_VALUES):
        return None
    if term.atom == "square" and (not total.axes if bound.parts else total.axes and term.weight is not None):
        return None
    if bound.parts:
        if term.atom == "pnorm":
            return None
        return _epigraph(total, f.shape, bound, origin)
    static = FrozenDict(f=term.atom, axes=total.axes, options=tuple(sorted(term.static.items())))
    data = dict(term.data) if term.weight is None else {**term.data, "weight": term.weight}
    level = plus(act.spread(bound.offset, f.shape), neg(total.offset))
    data["level"] = act.reshape(act.spread(level, f.shape), kept(term.arg.shape, total.axes))
    return Term("level_set", term.arg, origin, None, static, FrozenDict(data))


def _epigraph(total: Total, shape: Shape, bound: Affine, origin: Origin) -> Term | None:
    """F(x) ≤ t: the entries that meet, flat, and t, along a last axis; rows for the other axes of the argument."""
    term, axes = total.term, total.axes
    event = term.arg.shape
    rows = tuple(n for i, n in enumerate(event) if i - len(event) not in axes)
    inner = tuple(event[a] for a in axes) or (1,)
    order = (*(i for i in range(len(event)) if i - len(event) not in axes), *(a + len(event) for a in axes))
    separable = Trait.SEPARABLE in atom(term.atom).traits
    data: dict[str, ParamExpr] = {}
    for name, datum in term.data.items():
        if separable and size(datum.shape) > 1:
            data[name] = act.reshape(act.transpose(act.spread(datum, event), order), (*rows, *inner))
        elif rows and size(datum.shape) > 1:
            return None
        else:
            data[name] = datum
    if term.weight is not None:
        moved = act.transpose(act.spread(term.weight, event if separable else term.weight.shape), order)
        data["weight"] = moved if axes else act.reshape(moved, (*moved.shape, 1))
    options = dict(term.static)
    if "axes" in options:
        options["axes"] = tuple(axes.index(a) - len(axes) for a in options["axes"])
    static = FrozenDict(
        f=term.atom, axes=tuple(range(-len(inner), 0)), options=tuple(sorted(options.items())), shape=inner
    )
    x = aff.image(joining(event, axes), term.arg)
    height = aff.add(bound, aff.of_param(act.spread(neg(total.offset), bound.shape)))
    t = aff.image(Reshape(bound.shape, (*rows, 1), "C"), height)
    return Term("epigraph", aff.join([x, t]), origin, None, static, FrozenDict(data))


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
