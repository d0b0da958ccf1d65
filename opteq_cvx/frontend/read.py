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
from opteq_cvx.frontend.forms import Shown, dressed, form, is_complex
from opteq_cvx.frontend.listed import as_list, gathered
from opteq_cvx.frontend.names import addends
from opteq_cvx.frontend.roles import roles
from opteq_cvx.frontend.scope import Scope, text
from opteq_cvx.frontend.terms import function_terms
from opteq_cvx.frontend.ties import Ties, check_output, check_ties, variables_of
from opteq_cvx.frontend.transforms import expand
from opteq_cvx.frontend.tree import tree
from opteq_cvx.frontend.variables import Unknown, attribute_terms, names_of, unknown
from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.param import ParamExpr, Stage, add, const
from opteq_cvx.ir.program import Constraint, DualOutput, Origin, Output, Program, Term, Tie


@dataclass(frozen=True, slots=True)
class Reading:
    """A problem as read: the program, the weights' present values by name, and the user's own objects."""

    program: Program
    initial: dict[str, Array]
    declaration: Declaration


def read(
    problem: cp.Problem | Sequence[cp.Problem],
    inputs: Sequence[cp.Parameter] | None = None,
    outputs: Sequence[Any] | None = None,
    ties: Ties | None = None,
    *,
    gp: bool = False,
) -> Reading:
    """Read a problem, or several tied together, as one Program.

    Args:
        problem: any problem that follows the DCP rules; DPP is not needed. Several share parameters, not variables.
        inputs: parameters that each sample brings, in the order of the layer's arguments; `Input`s are found
            without it.
        outputs: variables, affine expressions of variables and parameters, constraints or their dual variables; by
            default every variable.
        ties: parameters, and the affine outputs that each has the value of.
        gp: the problem is geometric.

    Raises:
        NotConvexError: the problem breaks a DCP rule.
        UnsupportedError: a discrete variable, a complex parameter, or a function that no route covers.
        CompileError: a parameter without a role, repeated names, an output or a tie that is not affine.
    """
    problems, inputs, outputs = gathered(problem), as_list(inputs, "inputs"), as_list(outputs, "outputs")
    if gp and len(problems) > 1:
        words, fix = f"{len(problems)} problems with gp=True", "compile each by itself, or write them as one"
        raise UnsupportedError(message(words, "one geometric program", fix))
    shown: tuple[Shown, ...] = ()
    if gp or (len(problems) == 1 and is_complex(problems[0])):
        real = form(problems[0], outputs, gp=gp)
        problems, shown, outputs = (real.problem,), real.outputs, real.flat
    for one in problems:
        check(one)
    plain, added = zip(*(expand(one) for one in problems), strict=True)
    variables, listed = variables_of(plain), [c for one in problems for c in one.constraints]
    duals, affines = split_duals(listed, outputs)
    wanted = check_outputs(variables, affines)
    bound = check_ties(variables, ties or {})
    found = roles(plain, inputs, (*wanted, *(value for _, value in bound)), [p for p, _ in bound])
    items = [unknown(v, name) for v, name in zip(variables, names_of(variables), strict=True)]
    scope = Scope(found.by_id, {id(i.source): i.value for i in items}, frozenset(i.unknown.name for i in items))
    terms: list[Term] = []
    offsets: list[ParamExpr] = []
    for at, one in enumerate(plain):
        more, offset = _objective(one, f"program[{at}].objective" if len(problems) > 1 else "objective", scope)
        terms.extend(more)
        offsets.append(offset)
    constraints: list[Constraint] = []
    own = [c for one, more_ in zip(plain, added, strict=True) for c in one.constraints[: len(one.constraints) - more_]]
    rest = [c for one, more_ in zip(plain, added, strict=True) for c in one.constraints[len(one.constraints) - more_ :]]
    for at, constraint in enumerate((*own, *rest)):
        made, record = read_constraint(constraint, at, scope)
        if at < len(own):
            constraints.append(replace(record, terms=tuple(range(len(terms), len(terms) + len(made)))))
        terms.extend(made)
    for item in items:
        terms.extend(attribute_terms(item, scope))
    program = Program(
        variables=(*(i.unknown for i in items), *scope.extra),
        parameters=found.leaves,
        terms=tuple(terms),
        offset=act.reshape(add(*offsets), ()),
        outputs=dressed([_output(e, items, scope) for e in wanted], shown),
        constraints=tuple(constraints),
        sign=-1 if all(_sign(one) < 0 for one in problems) else 1,
        dual_outputs=tuple(_dual_output(d, constraints) for d in duals),
        ties=tuple(Tie(p.name(), affine(value, scope)) for p, value in bound),
    )
    named = [leaf.name for leaf in found.leaves if leaf.stage is Stage.WEIGHT]
    declaration = Declaration(problems, found.inputs, dict(zip(named, found.weights, strict=True)), wanted, bound)
    return Reading(program, found.initial(), declaration)


def _sign(problem: cp.Problem) -> int:
    return -1 if isinstance(problem.objective, cp.Maximize) else 1


def _objective(problem: cp.Problem, where: str, scope: Scope) -> tuple[list[Term], ParamExpr]:
    """The terms of what the problem minimizes, one summand of the user at a time, and the constant part."""
    terms: list[Term] = []
    offsets: list[ParamExpr] = []
    sign = const(float(_sign(problem)))
    for at, part in enumerate(addends(problem.objective.args[0])):
        more, offset = function_terms(tree(part, scope), sign, scope, Origin(f"{where}[{at}]", text(part)))
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
    constraints: Sequence[Any], outputs: Sequence[Any] | None
) -> tuple[tuple[Multiplier, ...], Sequence[Any] | None]:
    """The outputs that are constraints or dual variables, and the others in order.

    Raises:
        CompileError: a constraint that is not one of the problem.
    """
    if outputs is None:
        return (), None
    places = {id(c): i for i, c in enumerate(constraints)}
    parts = {id(d): (i, k) for i, c in enumerate(constraints) for k, d in enumerate(c.dual_variables)}
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
            several = len(constraints[i].dual_variables) > 1
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


def check_outputs(variables: Sequence[cp.Variable], outputs: Sequence[Any] | None) -> tuple[cp.Expression, ...]:
    """The outputs asked for, by default every variable.

    Raises:
        CompileError: one is not affine, or holds a variable that the problem lacks.
    """
    if outputs is None:
        return tuple(variables)
    for expr in outputs:
        check_output(expr, variables)
    return tuple(outputs)


def _output(expr: cp.Expression, items: list[Unknown], scope: Scope) -> Output:
    name = next((i.unknown.name for i in items if i.source is expr), None)
    return Output(text(expr) if name is None else name, affine(expr, scope))
