"""Tied programs as one inclusion 0 ∈ ∂f(u) + Pu + q − Cu over all variables, where the ties are affine tilts.

A tied parameter z may enter its program only as −⟨Cz, u⟩ + const(z): in linear terms, and in the offsets of squares and
quadratic forms. With z, an affine function of u, eliminated, what remains is a program without z and the coupling C.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.ir.linmap import (
    Compose,
    Diagonal,
    Identity,
    LeftMul,
    LinearMap,
    RightMul,
    Sum,
    compose,
    diagonal,
    sum_maps,
)
from opteq_cvx.ir.param import Const, ParamExpr, Stage, add, const, is_zero, multiply, neg
from opteq_cvx.ir.program import Affine, Output, Program, Term
from opteq_cvx.passes.edit import Edit, rewrite
from opteq_cvx.ties.linear import affine_in, holds, holds_map, transposed

TIED = "tie:"  # tied parameters among the names of variables


@dataclass(frozen=True, slots=True, eq=False)
class Edge(Frozen):
    """The block C_{target, source} of the coupling: the map from one variable to the gradient of another."""

    target: str
    source: str
    map: LinearMap


@dataclass(frozen=True, slots=True, eq=False)
class Tilted(Frozen):
    """`base` is the program without tied parameters (with P, q and f), `coupling` is C by blocks.

    `ties` are the tied parameters as affine functions of the variables alone.
    """

    base: Program
    coupling: tuple[Edge, ...]
    ties: Mapping[str, Affine]


def tilt(program: Program) -> Tilted | str:
    """The tied program as one inclusion, or the reason why some tie is no affine tilt.

    Raises:
        CompileError: the ties by themselves, as equations in the tied parameters, have no unique solution.
    """
    values = eliminate(program)
    if isinstance(values, str):
        return values
    names = frozenset(values)
    edits: list[Edit] = []
    edges: list[Edge] = []
    for at, term in enumerate(program.terms):
        split = _split(term, names)
        if isinstance(split, str):
            return split
        rest, tilts = split
        if rest == (term,):
            continue
        for name, tied, m in tilts:  # the gradient in `name` contains −m z
            value = values[tied]
            edges.extend(Edge(name, source, compose(m, inner)) for source, inner in value.parts)
            if not is_zero(value.offset):
                rest = (*rest, linear_term(name, neg(act.apply(m, value.offset)), term))
        edits.append(((at,), rest))
    outputs = outputs_without_ties(program, values)
    base = replace(
        rewrite(program, edits),
        parameters=tuple(p for p in program.parameters if p.stage is not Stage.TIED),
        offset=act.zeros(()) if holds(program.offset, names) else program.offset,
        outputs=outputs,
        ties=(),
    )
    return Tilted(base, _merged(edges), values)


def _merged(edges: list[Edge]) -> tuple[Edge, ...]:
    """One edge for each pair of variables."""
    found: dict[tuple[str, str], Edge] = {}
    for e in edges:
        key = (e.target, e.source)
        found[key] = e if key not in found else replace(e, map=_plus(found[key].map, e.map))
    return tuple(found.values())


def _plus(a: LinearMap, b: LinearMap) -> LinearMap:
    x, y = (Affine((("x", m),), act.zeros(m.shape_out)) for m in (a, b))
    return aff.add(x, y).map_of("x") or sum_maps(a, b)


# --- the ties as equations ---------------------------------------------------------------------------------


def eliminate(program: Program) -> dict[str, Affine] | str:
    """Each tied parameter as an affine function of the variables alone, or why it is not affine.

    Raises:
        CompileError: a tied parameter occurs in its own tie in a way that cannot be solved for it.
    """
    names = [t.parameter for t in program.ties]
    found: dict[str, Affine] = {}
    for tie in program.ties:
        value = _with_ties(tie.value, frozenset(names))
        if value is None:
            return f"the tie of {tie.parameter} multiplies a tied parameter by a variable, or is not affine in it"
        found[tie.parameter] = value
    for name in names:
        solved = _solved(found[name], name)
        found[name] = solved
        for other in names:
            if other != name:
                found[other] = _substituted(found[other], TIED + name, solved)
    return found


def _with_ties(value: Affine, names: Collection[str]) -> Affine | None:
    """`value` with the tied parameters of its offset as parts, under their names with a prefix."""
    if any(holds_map(m, names) for _, m in value.parts):
        return None
    offset = affine_in(value.offset, names)
    if offset is None:
        return None
    return Affine((*value.parts, *((TIED + n, m) for n, m in offset.parts)), offset.offset)


def _substituted(value: Affine, name: str, by: Affine) -> Affine:
    m = value.map_of(name)
    if m is None:
        return value
    rest = Affine(tuple(p for p in value.parts if p[0] != name), value.offset)
    return aff.add(rest, aff.image(m, by))


def _solved(value: Affine, name: str) -> Affine:
    """z = a z + rest → z = rest / (1 − a), for a number a."""
    m = value.map_of(TIED + name)
    if m is None:
        return value
    factor = 1.0 if isinstance(m, Identity) else _number(m)
    if factor is None or abs(1.0 - factor) < 1e-12:
        found = f"the tie of {name!r} holds {name!r} itself" + ("" if factor is None else f" {factor:g} times")
        fix = "tie it to an expression of the variables"
        raise CompileError(message(found, "ties that determine the tied parameters", fix))
    rest = Affine(tuple(p for p in value.parts if p[0] != TIED + name), value.offset)
    return aff.image(diagonal(const(1.0 / (1.0 - factor)), value.shape), rest)


def _number(m: LinearMap) -> float | None:
    if isinstance(m, Diagonal) and isinstance(m.d, Const) and m.d.dense().size:
        flat = m.d.dense().reshape(-1)
        if (flat == flat[0]).all():
            return float(flat[0])
    return None


def outputs_without_ties(program: Program, values: Mapping[str, Affine]) -> tuple[Output, ...]:
    """The outputs as functions of the variables alone.

    Raises:
        CompileError: an output multiplies a tied parameter by a variable.
    """
    return tuple(_output(o, values) for o in program.outputs)


def _output(output: Output, values: Mapping[str, Affine]) -> Output:
    value = _with_ties(output.value, values)
    if value is None:
        found = f'the output "{output.name}" multiplies a tied parameter by a variable'
        raise CompileError(message(found, "outputs that are affine in both", "compute it in torch"))
    for name in values:
        value = _substituted(value, TIED + name, values[name])
    return replace(output, value=value)


# --- the tied parameters in terms ----------------------------------------------------------------------------

Tilts = list[tuple[str, str, LinearMap]]
"""(variable, tied parameter, M): the gradient in the variable contains −Mz."""


def _split(term: Term, names: Collection[str]) -> tuple[tuple[Term, ...], Tilts] | str:
    """The term without tied parameters, and the tilts by them; or why there is no such form."""
    static = [e for e in (term.weight, *term.data.values()) if e is not None]
    in_maps = any(holds_map(m, names) for _, m in term.arg.parts)
    in_offset = holds(term.arg.offset, names)
    if not in_maps and not in_offset and not any(holds(e, names) for e in static):
        return (term,), []
    if term.atom == "linear":
        return _split_linear(term, names)
    tied = ", ".join(n for n in names if _occurs(term, n))
    if term.atom not in ("square", "quad_form") or in_maps or any(holds(e, names) for e in static):
        return f"{tied} enters {term.origin}, which is not linear in it"
    offset = affine_in(term.arg.offset, names)
    if offset is None:
        return f"{tied} enters {term.origin} in a way that is not affine"
    tilts: Tilts = []
    for tied_name, inner in offset.parts:
        slope = _slope(term, inner)
        tilts.extend((name, tied_name, compose(transposed(k), slope)) for name, k in term.arg.parts)
    return (replace(term, arg=Affine(term.arg.parts, offset.offset)),), tilts


def _occurs(term: Term, name: str) -> bool:
    exprs = [e for e in (term.weight, term.arg.offset, *term.data.values()) if e is not None]
    return any(holds(e, (name,)) for e in exprs) or any(holds_map(m, (name,)) for _, m in term.arg.parts)


def _slope(term: Term, inner: LinearMap) -> LinearMap:
    """−∇ of ⟨w, (y + Mz)²⟩ or w(y + Mz)ᵀP(y + Mz) in y, as a map of z."""
    shape = term.arg.shape
    scale = const(-2.0) if term.weight is None else multiply(const(-2.0), term.weight)
    scale = act.spread(act.reshape(scale, ()), ()) if scale.shape and all(n == 1 for n in scale.shape) else scale
    if term.atom == "square":
        return compose(diagonal(scale, shape), inner)
    p = term.data["P"]
    half = multiply(const(0.5), _plus_transpose(p))
    product = _rows(half, inner)
    return compose(diagonal(scale, shape), product)


def _plus_transpose(p: ParamExpr) -> ParamExpr:
    return add(p, act.transpose(p))


def _rows(p: ParamExpr, inner: LinearMap) -> LinearMap:
    shape = inner.shape_out
    return compose(LeftMul(p, shape) if len(shape) == 1 else RightMul(p, shape), inner)


def _split_linear(term: Term, names: Collection[str]) -> tuple[tuple[Term, ...], Tilts] | str:
    weight = const(1.0) if term.weight is None else term.weight
    rest: list[Term] = []
    tilts: Tilts = []
    for name, k in term.arg.parts:
        gradient = affine_in(act.adjoint(k, act.spread(weight, k.shape_out)), names)
        if gradient is None:
            return f"{', '.join(n for n in names if _occurs(term, n))} enters {term.origin} in a way that is not affine"
        tilts.extend((name, tied, _negative(m)) for tied, m in gradient.parts)
        if not is_zero(gradient.offset):
            rest.append(linear_term(name, gradient.offset, term))
    return tuple(rest), tilts


def _negative(m: LinearMap) -> LinearMap:
    """−m, the sign taken into the coefficient that carries one already."""
    return _fold_sign(compose(diagonal(const(-1.0), m.shape_out), m))


def _fold_sign(m: LinearMap) -> LinearMap:
    if not isinstance(m, Compose):
        return m
    signs = [p for p in m.maps if _number(p) is not None]
    if len(signs) < 2:
        return m
    total = float(np.prod([_number(p) for p in signs]))  # type: ignore[arg-type]
    out: LinearMap = diagonal(const(total), m.shape_out)
    for part in m.maps:
        if _number(part) is None:
            out = compose(out, part)
    return out


def linear_term(name: str, gradient: ParamExpr, like: Term) -> Term:
    """⟨gradient, variable⟩ as a term."""
    shape = gradient.shape
    if shape == ():
        linear: LinearMap = diagonal(gradient, ())
    else:
        linear = compose(Sum(tuple(range(len(shape))), shape), diagonal(gradient, shape))
    return Term("linear", Affine(((name, linear),), act.zeros(())), like.origin)
