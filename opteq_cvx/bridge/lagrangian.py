"""The Lagrangian of a CVXPY problem as torch evaluates it: in its parameters, at given variables and multipliers.

ℒ = f(x; θ) + Σ ⟨y_i, g_i(x; θ)⟩ in CVXPY's own multipliers. Variables and multipliers are replaced by parameters of
their shape, so that every expression is one of parameters only, of which each has a rule in `maps.evaluate`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
from cvxpy.constraints.exponential import ExpCone
from cvxpy.constraints.nonpos import Inequality, NonNeg, NonPos
from cvxpy.constraints.power import PowCone3D
from cvxpy.constraints.psd import PSD
from cvxpy.constraints.second_order import SOC
from cvxpy.constraints.zero import Equality, Zero
from torch import Tensor

from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.frontend.hoist import hoist
from opteq_cvx.frontend.scope import Scope, text
from opteq_cvx.ir.param import Leaf, ParamExpr, Stage
from opteq_cvx.maps.evaluate import Environment


@dataclass(frozen=True, slots=True, eq=False)
class Lagrangian:
    """ℒ and the outputs as expressions of the problem's parameters, its variables "@x…" and multipliers "@y…".

    `products` are (multiplier, expression, sign): their inner products are added to the objective.
    """

    objective: ParamExpr
    products: tuple[tuple[Leaf, ParamExpr, float], ...]
    outputs: tuple[ParamExpr, ...]
    variables: tuple[Leaf, ...]
    multipliers: tuple[Leaf, ...]

    def __call__(self, env: Environment, tilts: Sequence[Tensor]) -> Tensor:
        """ℒ + Σ ⟨tilt_k, output_k⟩ (B,); tilts are (B, *shape)."""
        total = env(self.objective).reshape(-1)
        for leaf, expr, sign in self.products:
            total = total + sign * _inner(env(leaf), env(expr))
        for tilt, expr in zip(tilts, self.outputs, strict=True):
            total = total + _inner(tilt, env(expr))
        return total


def _inner(a: Tensor, b: Tensor) -> Tensor:
    product = a * b
    return product.flatten(1).sum(1) if product.ndim > 1 else product


def lagrangian(
    problem: cp.Problem, outputs: Sequence[cp.Expression], parameters: Mapping[int, Leaf]
) -> tuple[Lagrangian, tuple[Any, ...]]:
    """The Lagrangian, and CVXPY's dual variables in the order of its multipliers.

    Args:
        problem: a problem; a Maximize counts as the minimization of the negative.
        outputs: affine expressions of its variables.
        parameters: the leaf of each parameter, by id.

    Raises:
        UnsupportedError: a constraint whose multipliers CVXPY does not give, or parameters in a variable's bounds.
    """
    known, stand_ins = dict(parameters), dict[int, cp.Parameter]()
    unknowns: list[Leaf] = []
    for i, variable in enumerate(problem.variables()):
        _refuse_bounds(variable)
        stand_in = cp.Parameter(variable.shape, name=f"@x{i}")
        leaf = Leaf(f"@x{i}", variable.shape, Stage.INPUT)
        stand_ins[id(variable)], known[id(stand_in)] = stand_in, leaf
        unknowns.append(leaf)
    scope = Scope(known, {})

    def read(expr: Any) -> ParamExpr:
        return hoist(expr.tree_copy(dict(stand_ins)), scope)

    sign = -1.0 if isinstance(problem.objective, cp.Maximize) else 1.0
    products: list[tuple[Leaf, ParamExpr, float]] = []
    duals: list[Any] = []
    for constraint in problem.constraints:
        for expr, dual, weight in _parts(constraint):
            leaf = Leaf(f"@y{len(duals)}", tuple(expr.shape), Stage.INPUT)
            products.append((leaf, read(expr), weight))
            duals.append(dual)
    found = Lagrangian(
        read(sign * problem.objective.args[0]),
        tuple(products),
        tuple(read(output) for output in outputs),
        tuple(unknowns),
        tuple(leaf for leaf, _, _ in products),
    )
    return found, tuple(duals)


def _parts(constraint: Any) -> list[tuple[Any, Any, float]]:
    """(expression, its dual variable, sign of their product in ℒ) of one constraint."""
    match constraint:
        case Equality() | Inequality() | Zero() | NonPos():
            return [(constraint.expr, constraint.dual_variables[0], 1.0)]
        case NonNeg() | PSD():
            return [(constraint.args[0], constraint.dual_variables[0], -1.0)]
        case SOC() | ExpCone() | PowCone3D():
            pairs = zip(constraint.args, constraint.dual_variables, strict=False)
            return [(arg, dual, -1.0) for arg, dual in pairs]
        case _:
            found = f"the constraint {text(constraint)} of type {type(constraint).__name__}"
            raise UnsupportedError(message(found, "one with multipliers", "use opteq_cvx.compile for this problem"))


def _refuse_bounds(variable: cp.Variable) -> None:
    bounds: Any = variable.attributes["bounds"]
    if bounds is not None and any(isinstance(b, cp.Expression) and b.parameters() for b in bounds):
        found = f"the bounds of variable {variable.name()!r} hold parameters"
        raise UnsupportedError(
            message(found, "constraints, whose multipliers CVXPY gives", "write them as constraints")
        )
