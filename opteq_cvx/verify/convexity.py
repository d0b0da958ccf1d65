"""What CVXPY believes without looking: `psd_wrap` and its relatives, checked on numbers."""

from collections.abc import Iterator
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
from cvxpy.atoms.affine import wraps
from cvxpy.atoms.affine.add_expr import AddExpression
from cvxpy.atoms.affine.unary_operators import NegExpression
from cvxpy.atoms.quad_form import QuadForm
from typing_extensions import override

from opteq_cvx.ir.frozen import Array
from opteq_cvx.verify.cvx import arguments
from opteq_cvx.verify.values import dense

EIGENVALUE_SLACK = 1e-10
"""An eigenvalue above −EIGENVALUE_SLACK · max|λ| counts as nonnegative: rounding of I − W Wᵀ reaches n ·
1e-16."""

SMALLEST = 1e-3
"""The least scale of a matrix: a constant that cancelled to rounding errors does not show what it cancelled
from."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A claim about a matrix that its value refutes; `margin` is how far it misses (negative), relative to
    its scale."""

    text: str
    claim: str
    margin: float

    @override
    def __str__(self) -> str:
        return f"{self.text} is not {self.claim}: it misses by {-self.margin:.1e} of its scale"


def _nodes(problem: cp.Problem) -> Iterator[cp.Expression]:
    """Every distinct expression node of a problem."""
    seen: set[int] = set()
    stack: list[cp.Expression] = [problem.objective.expr]
    for constraint in problem.constraints:
        stack.extend(constraint.args)
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            stack.extend(arguments(node))
            yield node


def definiteness(matrix: Array, scale: float) -> float:
    """λ_min / scale of a symmetric matrix by a dense eigendecomposition (at least SMALLEST)."""
    values = np.linalg.eigvalsh(0.5 * (matrix + matrix.T))
    return float(values[0]) / max(scale, SMALLEST)


def _scale(node: cp.Expression) -> float:
    """The largest entry among the terms of a sum: what the rounding errors of I − W Wᵀ are relative to."""
    if isinstance(node, wraps.Wrap | AddExpression | NegExpression):
        return max(_scale(arg) for arg in arguments(node))
    return float(np.max(np.abs(dense(node.value)), initial=0.0))


def _asymmetry(matrix: Array, sign: float) -> float:
    scale = float(np.max(np.abs(matrix), initial=0.0))
    return -float(np.max(np.abs(matrix - sign * matrix.T), initial=0.0)) / scale if scale > 0.0 else 0.0


def _least(value: Array) -> float:
    return float(np.min(value, initial=0.0)) / (1.0 + float(np.max(np.abs(value), initial=0.0)))


def _margin(node: cp.Expression, value: Array) -> tuple[str, float] | None:
    """What a node claims of its own value, and the margin by which the claim holds (negative: it does
    not)."""
    match node:
        case wraps.psd_wrap():
            return "positive semidefinite", min(definiteness(value, _scale(node)), _asymmetry(value, 1.0))
        case wraps.nsd_wrap():
            return "negative semidefinite", min(definiteness(-value, _scale(node)), _asymmetry(value, 1.0))
        case wraps.symmetric_wrap():
            return "symmetric", _asymmetry(value, 1.0)
        case wraps.skew_symmetric_wrap():
            return "skew-symmetric", _asymmetry(value, -1.0)
        case wraps.nonneg_wrap():
            return "nonnegative", _least(value)
        case wraps.nonpos_wrap():
            return "nonpositive", _least(-value)
        case _:
            return None


def doubts(problem: cp.Problem, *, solved: bool = False) -> tuple[Doubt, ...]:
    """The claims in `problem` that its present values refute: wraps, and the matrix of every quadratic form.

    Before a solve those of parameters and constants are looked at; with `solved`, those of the variables'
    values. A quadratic form that CVXPY takes as convex needs λ_min ≥ 0, one it takes as concave λ_max ≤ 0.
    Cost: one dense eigendecomposition per quadratic form, O(n³).
    """
    found: list[Doubt] = []
    for node in _nodes(problem):
        checked = None
        if isinstance(node, wraps.Wrap) and bool(node.variables()) is solved:
            checked = _margin(node, dense(node.value)) if node.value is not None else None
        elif isinstance(node, QuadForm) and not solved:
            checked = _quadratic(node)
        if checked is not None and checked[1] < -EIGENVALUE_SLACK:
            found.append(Doubt(str(node), *checked))
    return tuple(found)


def _quadratic(node: QuadForm) -> tuple[str, float] | None:
    """What CVXPY takes a quadratic form's matrix for, and the margin by which it is."""
    P = node.args[1]
    if P.value is None:
        return None
    convex = node.is_atom_convex()
    margin = definiteness(dense(P.value) * (1.0 if convex else -1.0), _scale(P))
    return f"{'positive' if convex else 'negative'} semidefinite", margin
