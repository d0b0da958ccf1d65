"""Affine CVXPY expressions as Affines: a structured linear map per variable, and a hoisted offset.

Shape rules move entries and give one map per argument; product rules take the side that holds no variable as
coefficient; what has neither goes through coefficient extraction.
"""

import cvxpy as cp

from opteq_cvx.errors import UnsupportedError
from opteq_cvx.frontend.affine_fallback import extracted
from opteq_cvx.frontend.hoist import hoist
from opteq_cvx.frontend.names import arguments, entry
from opteq_cvx.frontend.scope import Scope, complex_values
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.affine_products import PRODUCT_RULES
from opteq_cvx.ir.affine_shapes import SHAPE_RULES
from opteq_cvx.ir.linmap import LinearMap
from opteq_cvx.ir.program import Affine


def affine(expr: cp.Expression, scope: Scope) -> Affine:
    """`expr`, affine in the variables, as an Affine of shape `expr.shape`.

    Raises:
        UnsupportedError: an affine operation without a rule whose coefficients depend on parameters.
    """
    if isinstance(expr, cp.Variable):
        return scope.variable(expr)
    if not scope.has_variables(expr):
        return aff.of_param(hoist(expr, scope))
    return scope.affines.of(expr, lambda: _affine(expr, scope))


def _affine(expr: cp.Expression, scope: Scope) -> Affine:
    if expr.is_complex():
        raise UnsupportedError(complex_values(expr))
    maps = maps_of(expr, scope)
    return aff.add(*(aff.image(m, affine(arguments(expr)[i], scope)) for i, m in maps))


def maps_of(expr: cp.Expression, scope: Scope) -> tuple[tuple[int, LinearMap], ...]:
    """The linear map of each argument of an affine atom, by argument position; coefficients are taken in."""
    row = entry(expr)
    if row is not None and row.op in SHAPE_RULES:
        shapes = tuple(a.shape for a in arguments(expr))
        return tuple(enumerate(SHAPE_RULES[row.op](shapes, expr.shape, row.attrs(expr))))
    varying = [i for i, a in enumerate(arguments(expr)) if scope.has_variables(a)]
    if row is not None and row.op in PRODUCT_RULES and len(varying) == 1:
        at, c = varying[0], hoist(arguments(expr)[1 - varying[0]], scope)
        return ((at, PRODUCT_RULES[row.op](c, arguments(expr)[at].shape, expr.shape, at == 1)),)
    if row is not None and row.op == "conv2d":
        return ((0, row.attrs(expr)["linear"](hoist(arguments(expr)[1], scope))),)
    if row is not None and row.op == "power":  # power(x, 1)
        return ((0, SHAPE_RULES["wrap"]((expr.shape,), expr.shape, {})[0]),)
    if any(a.is_complex() for a in arguments(expr)):  # real(…) or imag(…)
        raise UnsupportedError(complex_values(expr))
    return extracted(expr, scope)
