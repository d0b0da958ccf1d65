"""The DCP check: errors name the smallest offending expression, the rule it breaks and what to write."""

from typing import Any, NoReturn

import cvxpy as cp

from opteq_cvx.errors import NotConvexError, message
from opteq_cvx.frontend.names import arguments, entry, kind
from opteq_cvx.frontend.scope import text

PRODUCTS = ("multiply", "matmul")


def check(problem: cp.Problem) -> None:
    """Refuse a problem that does not follow the DCP rules.

    Raises:
        NotConvexError: the message quotes the smallest sub-expression that breaks a rule.
    """
    if problem.is_dcp():
        return
    objective = problem.objective
    if not objective.is_dcp():
        word, want = ("Maximize", "concave") if isinstance(objective, cp.Maximize) else ("Minimize", "convex")
        _refuse(objective.args[0], want, f"objective of {word}", "objective", f"{word}({text(objective.args[0])})")
    for at, constraint in enumerate(problem.constraints):
        if not constraint.is_dcp():
            where, words = f"constraint[{at}]", text(constraint)
            if kind(constraint) in ("inequality", "nonpos"):
                _refuse(_left(constraint), "convex", "smaller side minus the larger one", where, words)
            elif kind(constraint) == "nonneg":
                _refuse(constraint.args[0], "concave", "expression that is to be nonnegative", where, words)
            else:  # all others are of affine arguments
                wrong = next(arg for arg in constraint.args if not arg.is_affine())
                _refuse(wrong, "affine", "argument of this constraint", where, words)


def _left(constraint: Any) -> cp.Expression:
    left: cp.Expression = constraint.expr if kind(constraint) == "inequality" else constraint.args[0]
    return left


def _refuse(expr: cp.Expression, want: str, what: str, where: str, words: str) -> NoReturn:
    origin = f'{where} "{words}"'
    culprit = smallest(expr)
    if culprit is None:
        found = f"the {what} is {expr.curvature.lower()}"
        fix = {
            "affine": "relax an equality to an inequality, or give the argument a variable of its own",
            "convex": "change its sign, or maximize",
            "concave": "change its sign, or minimize",
        }[want]
        if where != "objective" and want != "affine":
            fix = "put what is convex on the smaller side of <= and what is concave on the larger one"
        raise NotConvexError(message(found, f"a{'n' if want == 'affine' else ''} {want} one", fix, origin))
    rule, fix = reason(culprit)
    raise NotConvexError(message(f'"{text(culprit)}" {rule}', f"a {want} {what}", fix, origin))


def smallest(expr: cp.Expression) -> cp.Expression | None:
    """The innermost sub-expression that is neither convex nor concave; None when there is none."""
    if expr.is_convex() or expr.is_concave():
        return None
    for arg in arguments(expr):
        found = smallest(arg)
        if found is not None:
            return found
    return expr


def reason(expr: Any) -> tuple[str, str]:
    """(the rule that `expr` breaks although its arguments follow them, what to write instead)."""
    row = entry(expr)
    op = row.op if row is not None else ""
    if op in (*PRODUCTS, "divide"):
        return _product(expr, op)
    if op == "add":
        return _sum(expr)
    if op == "quad_form":
        return (
            f"has a matrix not known to be positive semidefinite, {text(expr.args[1])}",
            "declare the parameter PSD=True, or write quad_form(x, cp.psd_wrap(P)): the sign is then "
            "certified from the values, never assumed",
        )
    if op == "power" and not isinstance(expr.p, cp.Constant):
        return (
            "has a parameter as exponent, and the curvature changes with its value",
            "write the exponent as a number",
        )
    return _composition(expr)


def _product(expr: Any, op: str) -> tuple[str, str]:
    left, right = expr.args
    if op == "divide" and not right.is_constant():
        fix = "write cp.inv_pos(y) for 1 / y, cp.quad_over_lin(x, y) for x**2 / y"
        return "divides by an expression that holds variables", fix
    if not left.is_constant() and not right.is_constant():
        fix = "write cp.square(x) for x * x, cp.quad_form(x, P) for x @ P @ x, or make one factor a parameter"
        return "multiplies two expressions that both hold variables", fix
    factor, other = (left, right) if left.is_constant() else (right, left)
    name = text(factor)
    fix = f"declare {name} with nonneg=True, or use {name}**2 or cp.pos({name}) instead"
    return f"scales a {other.curvature.lower()} expression by {name}, whose sign is unknown", fix


def _sum(expr: Any) -> tuple[str, str]:
    convex = next((a for a in expr.args if a.is_convex() and not a.is_affine()), expr.args[0])
    concave = next((a for a in expr.args if a.is_concave() and not a.is_affine()), expr.args[-1])
    rule = f'adds the convex "{text(convex)}" and the concave "{text(concave)}"'
    return rule, "change the sign of one of them, or replace one by its linearization with parameters"


def _composition(expr: Any) -> tuple[str, str]:
    row = entry(expr)
    name = type(expr).__name__ if row is None else row.op
    shape = "convex" if expr.is_atom_convex() else "concave" if expr.is_atom_concave() else "neither convex nor concave"
    if shape.startswith("neither"):
        fix = "replace it by a convex function, move it to parameters, or give its argument the sign it needs"
        return f"uses {name}, which is {shape} of this argument", fix
    for i, arg in enumerate(expr.args):
        if arg.is_affine():
            continue
        up, down = expr.is_incr(i), expr.is_decr(i)
        fits = (arg.is_convex() if shape == "convex" else arg.is_concave()) and up
        fits = fits or ((arg.is_concave() if shape == "convex" else arg.is_convex()) and down)
        if not fits:
            direction = "nondecreasing" if up else "nonincreasing" if down else "not monotone"
            inner = f'the {arg.curvature.lower()} "{text(arg)}"'
            rule = f"composes the {shape} {name}, {direction} in its argument {i}, with {inner}"
            need = {"nondecreasing": shape, "nonincreasing": "concave" if shape == "convex" else "convex"}
            kind_ = need.get(direction, "affine")
            return rule, f"make that argument {kind_}, for instance by a variable of its own that bounds it"
    return f"does not follow the rules of {name}", "rewrite it with convex functions of affine arguments"
