"""The explicit convex program of variational ties: Σ_k d_k f_k(u_k) + ½uᵀD(P − C)u + ⟨Dq, u⟩, up to a constant."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from opteq_cvx.atoms import Trait, atom
from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.frozen import Array, FrozenDict, size
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.linmap import Reshape
from opteq_cvx.ir.param import Const, ParamExpr, add, const, multiply
from opteq_cvx.ir.program import Affine, Constraint, Origin, Program, Term
from opteq_cvx.passes.edit import Edit, rewrite
from opteq_cvx.splitting.structure import SMOOTH
from opteq_cvx.ties.matrix import assemble
from opteq_cvx.ties.tilt import linear_term

TIES = "ties"  # where the joint quadratic comes from


def joint_program(base: Program, grid: Sequence[Sequence[ParamExpr]], d: Array, layout: Layout) -> Program:
    """The program whose quadratic is ½uᵀDFu, F by blocks, and whose other terms are those of `base`, weighted by D."""
    edits: list[Edit] = []
    for at, term in enumerate(base.terms):
        new = _rewritten(term, d, layout)
        if new != (term,):
            edits.append(((at,), new))
    program = rewrite(base, edits)
    curved = assemble([[multiply(const(s), block) for block in row] for s, row in zip(d, grid, strict=True)])
    words = "½uᵀ(P − C)u" if (d == 1.0).all() else "½uᵀD(P − C)u"
    quadratic = Term(
        "quad_form", stacked(layout), Origin(TIES, words), act.spread(const(0.5), (1,)), data=FrozenDict(P=curved)
    )
    constraints = tuple(_rescaled(c, program, d, layout) for c in program.constraints)
    return replace(program, terms=(*program.terms, quadratic), constraints=constraints, offset=act.zeros(()))


def stacked(layout: Layout) -> Affine:
    """All variables, flattened and one after the other."""
    flat = []
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        x = aff.of_variable(name, shape)
        flat.append(x if len(shape) == 1 else aff.image(Reshape(shape, (size(shape),), "C"), x))
    return flat[0] if len(flat) == 1 else aff.join(flat)


def _rewritten(term: Term, d: Array, layout: Layout) -> tuple[Term, ...]:
    """A quadratic by the linear part that its offset leaves; any other term, weighted."""
    scale = d[layout.names.index(term.arg.parts[0][0])] if term.arg.parts else 1.0
    if term.atom not in SMOOTH:
        free = scale == 1.0 or Trait.SET in atom(term.atom).traits
        return (term,) if free else (weighted(term, scale),)
    out: list[Term] = []
    for name, k in term.arg.parts:
        pulled = act.adjoint(k, _slope_at_offset(term))
        if not (isinstance(pulled, Const) and not pulled.dense().any()):
            gradient = multiply(const(d[layout.names.index(name)]), pulled)
            out.append(linear_term(name, act.spread(gradient, k.shape_in), term))
    return tuple(out)


def _slope_at_offset(term: Term) -> ParamExpr:
    """2w∘b, or w(P + Pᵀ)b."""
    shape = term.arg.shape
    weight = const(1.0) if term.weight is None else term.weight
    if term.atom == "square":
        return act.spread(multiply(multiply(const(2.0), weight), term.arg.offset), shape)
    p, b = term.data["P"], term.arg.offset
    both = add(p, act.transpose(p))
    product = act.matmul(both, b) if len(shape) == 1 else act.matmul(b, both)
    return act.spread(multiply(weight, product), shape)


def weighted(term: Term, scale: float) -> Term:
    """scale · term."""
    if term.atom == "linear":
        weight = const(np.array(scale)) if term.weight is None else multiply(const(scale), term.weight)
        return replace(term, weight=act.spread(weight, term.arg.shape))
    weight = const(np.array(scale)) if term.weight is None else multiply(const(scale), term.weight)
    return replace(term, weight=weight)


def _rescaled(constraint: Constraint, program: Program, d: Array, layout: Layout) -> Constraint:
    """Multipliers of the joint program are d_k times those of the program that holds the constraint."""
    names = [name for i in constraint.terms for name, _ in program.terms[i].arg.parts]
    scale = d[layout.names.index(names[0])] if names else 1.0
    if scale == 1.0:
        return constraint
    back = const(1.0 / scale)
    duals = tuple(replace(x, factor=back if x.factor is None else multiply(back, x.factor)) for x in constraint.duals)
    joined = constraint.joined
    if joined is not None:
        joined = replace(joined, factor=back if joined.factor is None else multiply(back, joined.factor))
    return replace(constraint, duals=duals, joined=joined)
