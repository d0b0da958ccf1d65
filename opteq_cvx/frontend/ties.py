"""The ties a user declares: each parameter bound to an affine expression of the variables; what may not be tied."""

from collections.abc import Mapping, Sequence
from typing import Any

import cvxpy as cp

from opteq_cvx.declare import Weight
from opteq_cvx.errors import CompileError, message
from opteq_cvx.frontend.scope import text

Ties = Mapping[cp.Parameter, cp.Expression]
"""Parameters by identity, and the expression that each has the value of."""


def variables_of(problems: Sequence[cp.Problem]) -> list[cp.Variable]:
    """The variables of all problems, problem by problem.

    Raises:
        CompileError: one variable belongs to two problems, which then could not both decide on it.
    """
    found: dict[int, cp.Variable] = {}
    for problem in problems:
        for variable in problem.variables():
            if id(variable) in found:
                what = f"variable {variable.name()!r} belongs to two problems"
                fix = "give the second problem a parameter in its place, and tie that to the variable"
                raise CompileError(message(what, "problems with variables of their own", fix))
        found.update({id(v): v for v in problem.variables()})
    return list(found.values())


def check_ties(variables: Sequence[cp.Variable], ties: Any) -> tuple[tuple[cp.Parameter, cp.Expression], ...]:
    """The ties as pairs, in the order given.

    Raises:
        CompileError: a key that is no plain parameter, or a value of another shape or not affine in the variables.
    """
    if not isinstance(ties, Mapping):
        found = f"ties is a {type(ties).__name__}"
        raise CompileError(message(found, "a dictionary {parameter: output}", "write ties={z: W.T @ u}"))
    pairs: list[tuple[cp.Parameter, cp.Expression]] = []
    for parameter, value in ties.items():
        if not isinstance(parameter, cp.Parameter) or isinstance(parameter, Weight):
            found = f"ties binds the {type(parameter).__name__} {str(parameter)[:60]!r}"
            raise CompileError(message(found, "a cp.Parameter or opteq_cvx.Input", "declare it as one of these"))
        origin = f"the tie {parameter.name()} = {text(value)}"
        if not isinstance(value, cp.Expression) or value.shape != parameter.shape:
            shape = value.shape if isinstance(value, cp.Expression) else type(value).__name__
            found = f"{origin} gives {shape} to a parameter of shape {parameter.shape}"
            raise CompileError(message(found, "a CVXPY expression of the same shape", "reshape one of the two"))
        check_affine(value, variables, origin, "tie the parameter to an affine expression of the solution")
        pairs.append((parameter, value))
    return tuple(pairs)


def check_affine(
    expr: cp.Expression, variables: Sequence[cp.Variable], origin: str, fix: str, *, real: bool = True
) -> None:
    """Refuse an expression that is not affine in `variables`.

    Raises:
        CompileError: it is not affine, complex unless `real` is False, or holds another variable.
    """
    if real and expr.is_complex():
        found, remedy = f"{origin} has complex values", "return its real and imaginary parts, and join them in torch"
        raise CompileError(message(found, "a real expression of a program with real variables", remedy))
    if not expr.is_affine():
        found = f"{origin} is {expr.curvature.lower()}"
        raise CompileError(message(found, "an affine expression of the variables", fix))
    known = {id(v) for v in variables}
    for v in expr.variables():
        if id(v) not in known:
            found = f"{origin} holds {v.name()!r}, which is no variable of the problem"
            raise CompileError(message(found, "variables of the problem", "use it in the problem, or drop it"))


def check_output(expr: Any, variables: Sequence[cp.Variable], *, real: bool = True) -> None:
    """Refuse an output that is no affine expression of the variables.

    Raises:
        CompileError: it is something else, or as `check_affine` says.
    """
    if not isinstance(expr, cp.Expression):
        found = f"outputs holds a {type(expr).__name__}"
        raise CompileError(message(found, "variables or affine expressions", "list the CVXPY expression itself"))
    fix = "return the variables it is made of, and compute it from them in torch"
    check_affine(expr, variables, f'the output "{text(expr)}"', fix, real=real)
