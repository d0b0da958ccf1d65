"""read: a CVXPY problem as a Program. The whole frontend on one screen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cvxpy as cp

from opteq_cvx.errors import CompileError, UnsupportedError, message
from opteq_cvx.frontend.affine import affine
from opteq_cvx.frontend.constraints import read_constraint
from opteq_cvx.frontend.dcp import check
from opteq_cvx.frontend.declaration import Declaration
from opteq_cvx.frontend.names import addends
from opteq_cvx.frontend.roles import roles
from opteq_cvx.frontend.scope import Scope, text
from opteq_cvx.frontend.terms import function_terms
from opteq_cvx.frontend.tree import tree
from opteq_cvx.frontend.variables import Unknown, attribute_terms, names_of, unknown
from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.param import ParamExpr, add, const
from opteq_cvx.ir.program import Constraint, DualOutput, Origin, Output, Program, Term


@dataclass(frozen=True, slots=True)
class Reading:
    """A problem as read: the program, the weights' present values by name, and the user's own objects."""

    program: Program
    initial: dict[str, Array]
    declaration: Declaration


def read(
    problem: cp.Problem,
    inputs: Sequence[cp.Parameter] | None = None,
    outputs: Sequence[Any] | None = None,
) -> Reading:
    """Read a problem.

    Args:
        problem: any problem that follows the DCP rules; DPP is not needed.
        inputs: parameters that each sample brings, in the order of the layer's arguments; `Input`s are found
            without it.
        outputs: variables, affine expressions of variables and parameters, constraints or their dual variables; by
            default every variable.

    Raises:
        NotConvexError: the problem breaks a DCP rule.
        UnsupportedError: a discrete or complex variable, or a function that no route covers.
        CompileError: a parameter without a role, repeated names, or an output that is not affine.
    """
    check(problem)
    duals, affines = split_duals(problem, outputs)
    wanted = check_outputs(problem, affines)
    found = roles(problem, inputs, wanted)
    variables = problem.variables()
    items = [unknown(v, name) for v, name in zip(variables, names_of(variables), strict=True)]
    scope = Scope(found.by_id, {id(i.source): i.value for i in items}, frozenset(i.unknown.name for i in items))
    sign = -1 if isinstance(problem.objective, cp.Maximize) else 1
    terms, offset = _objective(problem.objective.args[0], sign, scope)
    constraints: list[Constraint] = []
    for at, constraint in enumerate(problem.constraints):
        more, record = read_constraint(constraint, at, scope)
        constraints.append(replace(record, terms=tuple(range(len(terms), len(terms) + len(more)))))
        terms.extend(more)
    for item in items:
        terms.extend(attribute_terms(item, scope))
    program = Program(
        variables=(*(i.unknown for i in items), *scope.extra),
        parameters=found.leaves,
        terms=tuple(terms),
        offset=offset,
        outputs=tuple(_output(e, items, scope) for e in wanted),
        constraints=tuple(constraints),
        sign=sign,
        dual_outputs=tuple(_dual_output(d, constraints) for d in duals),
    )
    weights = dict(zip((leaf.name for leaf in found.leaves[len(found.inputs) :]), found.weights, strict=True))
    return Reading(program, found.initial(), Declaration(problem, found.inputs, weights, wanted))


def _objective(expr: cp.Expression, sign: int, scope: Scope) -> tuple[list[Term], ParamExpr]:
    """The terms of sign · expr, one summand of the user at a time, and the constant part."""
    terms: list[Term] = []
    offsets: list[ParamExpr] = []
    for at, part in enumerate(addends(expr)):
        more, offset = function_terms(
            tree(part, scope), const(float(sign)), scope, Origin(f"objective[{at}]", text(part))
        )
        terms.extend(more)
        offsets.append(offset)
    return terms, act.reshape(add(*offsets), ())


@dataclass(frozen=True, slots=True)
class Multiplier:
    """An output that is a dual variable: its position, the constraint's place in the problem, the part (None: all)."""

    position: int
    constraint: int
    part: int | None
    name: str


def split_duals(
    problem: cp.Problem, outputs: Sequence[Any] | None
) -> tuple[tuple[Multiplier, ...], Sequence[Any] | None]:
    """The outputs that are constraints or dual variables, and the others in order.

    Raises:
        CompileError: a constraint that is not one of the problem.
    """
    if outputs is None:
        return (), None
    places = {id(c): i for i, c in enumerate(problem.constraints)}
    parts = {id(d): (i, k) for i, c in enumerate(problem.constraints) for k, d in enumerate(c.dual_variables)}
    found: list[Multiplier] = []
    others: list[Any] = []
    for at, wanted in enumerate(outputs):
        if isinstance(wanted, cp.constraints.constraint.Constraint):
            if id(wanted) not in places:
                words = f'the output "{text(wanted)}" is no constraint of the problem'
                raise CompileError(message(words, "one of problem.constraints", "list the constraint object itself"))
            i = places[id(wanted)]
            found.append(Multiplier(at, i, None, f"dual[{i}]"))
        elif id(wanted) in parts:
            i, k = parts[id(wanted)]
            several = len(problem.constraints[i].dual_variables) > 1
            found.append(Multiplier(at, i, k, f"dual[{i}].{k}" if several else f"dual[{i}]"))
        else:
            others.append(wanted)
    return tuple(found), others


def _dual_output(wanted: Multiplier, constraints: Sequence[Constraint]) -> DualOutput:
    record = constraints[wanted.constraint]
    if record.terms and not record.duals:
        found = f"multipliers of {record.origin}"
        fix = "write it with second-order, semidefinite, exponential or power cones"
        raise UnsupportedError(message(found, "a constraint whose multipliers CVXPY has", fix))
    return DualOutput(wanted.name, wanted.position, wanted.constraint, wanted.part)


def check_outputs(problem: cp.Problem, outputs: Sequence[Any] | None) -> tuple[cp.Expression, ...]:
    """The outputs asked for, by default every variable.

    Raises:
        CompileError: one is not affine, or holds a variable that the problem lacks.
    """
    if outputs is None:
        return tuple(problem.variables())
    known = {id(v) for v in problem.variables()}
    for expr in outputs:
        if not isinstance(expr, cp.Expression):
            found = f"outputs holds a {type(expr).__name__}"
            raise CompileError(message(found, "variables or affine expressions", "list the CVXPY expression itself"))
        if not expr.is_affine() or expr.is_complex():
            found = f'the output "{text(expr)}" is {expr.curvature.lower()}'
            fix = "return the variables it is made of, and compute it from them in torch"
            raise CompileError(message(found, "an affine expression of the variables", fix))
        for v in expr.variables():
            if id(v) not in known:
                found = f'the output "{text(expr)}" holds {v.name()!r}, which is no variable of the problem'
                raise CompileError(
                    message(found, "variables of the problem", "use it in the problem, or drop the output")
                )
    return tuple(outputs)


def _output(expr: cp.Expression, items: list[Unknown], scope: Scope) -> Output:
    name = next((i.unknown.name for i in items if i.source is expr), None)
    return Output(text(expr) if name is None else name, affine(expr, scope))
