"""CVXPY variables as the program's variables, and their attributes as terms.

`diag` and `sparsity` leave only the free entries as unknowns; every other attribute becomes a set that the
variable lies in.
"""

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from opteq_cvx.atoms import recognize
from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.frontend.hoist import hoist
from opteq_cvx.frontend.nodes import affine_node
from opteq_cvx.frontend.scope import Scope
from opteq_cvx.frontend.terms import set_terms
from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.affine_shapes import permuting, positions
from opteq_cvx.ir.frozen import FrozenDict, IntArray
from opteq_cvx.ir.linmap import gather
from opteq_cvx.ir.param import Apply, Const, ParamExpr, const
from opteq_cvx.ir.program import Affine, Origin, Term, Variable
from opteq_cvx.ir.tree import Node

REFUSED = {
    "boolean": "relax it to bounds=[0, 1], and round the result if you must",
    "integer": "drop the attribute: the layer solves the continuous relaxation",
    "complex": "split the variable into its real and imaginary parts",
    "imag": "declare the imaginary part as a real variable",
    "hermitian": "use a symmetric real variable, or split real and imaginary parts",
}


@dataclass(frozen=True, slots=True)
class Unknown:
    """A variable of the user: its unknown in the program, its value in terms of that, its free entries."""

    source: cp.Variable
    unknown: Variable
    value: Affine
    free: IntArray | None


def unknown(variable: cp.Variable, name: str) -> Unknown:
    """The program's variable behind a CVXPY variable.

    Raises:
        UnsupportedError: the variable is discrete or complex.
    """
    for attribute, fix in REFUSED.items():
        given = variable.attributes[attribute]
        if given is not None and given is not False:
            found = f"variable {name!r} is declared {attribute}"
            raise UnsupportedError(message(found, "a real, continuous variable", fix))
    free = _free_entries(variable)
    if free is None:
        return Unknown(variable, Variable(name, variable.shape), aff.of_variable(name, variable.shape), None)
    inner = aff.of_variable(name, free.shape)
    return Unknown(variable, Variable(name, free.shape), aff.place(inner, free, variable.shape), free)


def _free_entries(variable: cp.Variable) -> IntArray | None:
    """The flat positions (C order) of entries that are not zero by declaration; None when all are free."""
    if variable.attributes["diag"]:
        rank = len(variable.shape)
        return np.diagonal(positions(variable.shape), axis1=rank - 2, axis2=rank - 1).reshape(-1)
    if variable.sparse_idx is not None:
        return np.ravel_multi_index(tuple(np.asarray(i) for i in variable.sparse_idx), variable.shape)
    return None


def attribute_terms(item: Unknown, scope: Scope) -> tuple[Term, ...]:
    """The sets that a variable's attributes put it in."""
    variable, name = item.source, item.unknown.name
    given = {k: v for k, v in variable.attributes.items() if v is not None and v is not False}
    on = [k for k in given if k not in ("diag", "sparsity")]
    terms: list[Term] = []
    if any(k in on for k in ("nonneg", "pos", "nonpos", "neg", "bounds")):
        shown = ", ".join("bounds" if k == "bounds" else f"{k}=True" for k in on)
        terms.append(_box(item, scope, Origin(f"variable {name}", shown)))
    for key in ("symmetric", "PSD", "NSD"):
        if key in on:
            terms.extend(_matrix_set(item, key, Origin(f"variable {name}", f"{key}=True")))
    return tuple(terms)


def box_term(arg: Affine, lower: ParamExpr, upper: ParamExpr, origin: Origin) -> Term:
    """lower ≤ arg ≤ upper; bounds are broadcast to the argument."""
    data = FrozenDict(lower=act.spread(lower, arg.shape), upper=act.spread(upper, arg.shape))
    return Term("box", arg, origin, data=data)


def _box(item: Unknown, scope: Scope, origin: Origin) -> Term:
    attributes: dict[str, Any] = item.source.attributes
    lower: ParamExpr = const(0.0 if attributes["nonneg"] or attributes["pos"] else -np.inf)
    upper: ParamExpr = const(0.0 if attributes["nonpos"] or attributes["neg"] else np.inf)
    if attributes["bounds"] is not None:
        low, high = (_bound(b, item, scope) for b in attributes["bounds"])
        lower, upper = tighter("maximum", lower, low), tighter("minimum", upper, high)
    shape = item.unknown.shape
    return box_term(aff.of_variable(item.unknown.name, shape), lower, upper, origin)


def _bound(bound: Any, item: Unknown, scope: Scope) -> ParamExpr:
    """A declared bound, on the free entries."""
    if isinstance(bound, cp.Expression):
        return hoist(bound, scope)
    array = np.asarray(bound.toarray() if sp.issparse(bound) else bound, dtype=np.float64)
    if item.free is not None and array.shape == item.source.shape:
        array = array.reshape(-1)[item.free]
    return const(array)


def tighter(op: str, a: ParamExpr, b: ParamExpr) -> ParamExpr:
    """The larger of two lower bounds ("maximum"), or the smaller of two upper ones ("minimum")."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    idle = -np.inf if op == "maximum" else np.inf
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Const) and (one.dense() == idle).all():
            return act.spread(other, shape)
    if isinstance(a, Const) and isinstance(b, Const):
        choose = np.maximum if op == "maximum" else np.minimum
        return const(choose(a.dense(), b.dense()))
    return Apply(op, (a, b), shape)


def _matrix_set(item: Unknown, key: str, origin: Origin) -> tuple[Term, ...]:
    x = aff.of_variable(item.unknown.name, item.unknown.shape)
    if key == "symmetric":
        node = Node("symmetric", (affine_node(x, item.unknown.name),), x.shape, origin.text)
        return set_terms(node, origin) if recognize(node) is not None else (_skew_is_zero(x, origin),)
    arg = x if key == "PSD" else aff.negative(x)
    return set_terms(Node("psd", (affine_node(arg, item.unknown.name),), x.shape, origin.text), origin)


def _skew_is_zero(x: Affine, origin: Origin) -> Term:
    """Symmetry as equality of the strict triangles."""
    upper = _strict_upper(x)
    rank = len(x.shape)
    swapped = aff.image(permuting(x.shape, (*range(rank - 2), rank - 1, rank - 2)), x)
    return Term("zero", aff.add(upper, aff.negative(_strict_upper(swapped))), origin)


def _strict_upper(x: Affine) -> Affine:
    rows, columns = np.triu_indices(x.shape[-1], k=1)
    return aff.image(gather(positions(x.shape)[..., rows, columns], x.shape), x)


def names_of(variables: list[cp.Variable]) -> list[str]:
    """One name each, the user's own; repeated ones get a number."""
    used: set[str] = set()
    out: list[str] = []
    for variable in variables:
        name, count = variable.name(), 1
        while name in used:
            count += 1
            name = f"{variable.name()}_{count}"
        used.add(name)
        out.append(name)
    return out
