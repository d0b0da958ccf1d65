"""Scope: what one reading knows: each parameter's leaf, each variable's name, and results by expression.

CVXPY's `==` builds constraints and its names are not unique, so everything is keyed by `id`. Memos keep a
reference to their expression: an id stays taken as long as the reading lives.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import cvxpy as cp

from opteq_cvx.errors import CompileError, message
from opteq_cvx.frontend.names import arguments, hidden, is_linear_atom
from opteq_cvx.frontend.spelling import spoken
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.frozen import Shape
from opteq_cvx.ir.param import Leaf, ParamExpr
from opteq_cvx.ir.program import Affine, Variable
from opteq_cvx.ir.tree import Node

T = TypeVar("T")
TEXT_LIMIT = 120


class Memo(dict[int, tuple[cp.Expression, T]]):
    """Results by expression identity."""

    def of(self, expr: cp.Expression, make: Callable[[], T]) -> T:
        """The remembered result for `expr`, else what `make` returns."""
        found = self.get(id(expr))
        if found is None:
            found = self[id(expr)] = (expr, make())
        return found[1]


@dataclass(frozen=True, slots=True)
class Scope:
    """The names of one reading and its memos; `leaves` and `variables` map ids of CVXPY leaves.

    The conic route adds unknowns: `extra` holds them, `bounds` the one that bounds a function, by the node's id.
    """

    leaves: Mapping[int, Leaf]
    variables: Mapping[int, Affine]
    names: frozenset[str] = frozenset()
    params: Memo[ParamExpr] = field(default_factory=Memo)
    affines: Memo[Affine] = field(default_factory=Memo)
    nodes: Memo[Node] = field(default_factory=Memo)
    varies: Memo[bool] = field(default_factory=Memo)
    depends: Memo[bool] = field(default_factory=Memo)
    linear: Memo[bool] = field(default_factory=Memo)
    extra: list[Variable] = field(default_factory=list)
    bounds: dict[int, tuple[Node, Affine]] = field(default_factory=dict)

    def has_variables(self, expr: cp.Expression) -> bool:
        """Whether some variable occurs in `expr`."""
        if isinstance(expr, cp.Variable):
            return True
        if not arguments(expr):
            return bool(expr.variables())
        return self.varies.of(expr, lambda: any(self.has_variables(a) for a in arguments(expr)))

    def has_parameters(self, expr: cp.Expression) -> bool:
        """Whether some parameter occurs in `expr`, in its arguments or in an atom's data."""
        if isinstance(expr, cp.Parameter):
            return True
        inside = (*arguments(expr), *hidden(expr))
        return self.depends.of(expr, lambda: any(self.has_parameters(a) for a in inside))

    def is_linear(self, expr: cp.Expression) -> bool:
        """Whether `expr` is made of affine atoms only, with at most one varying factor in each product."""
        if isinstance(expr, cp.Variable) or not self.has_variables(expr):
            return True
        return self.linear.of(
            expr,
            lambda: is_linear_atom(expr) and expr.is_affine() and all(self.is_linear(a) for a in arguments(expr)),
        )

    def leaf(self, parameter: cp.Parameter) -> Leaf:
        """The leaf of a parameter.

        Raises:
            CompileError: the parameter is no part of this reading.
        """
        if id(parameter) not in self.leaves:
            found = f"parameter {parameter.name()!r} is neither an input nor a weight"
            raise CompileError(
                message(found, "a known parameter", "list it in inputs=, or declare an opteq_cvx.Weight")
            )
        return self.leaves[id(parameter)]

    def fresh(self, kind: str, shape: Shape) -> Affine:
        """A new unknown of the program, beside the user's; its name starts with "@"."""
        taken = self.names | {v.name for v in self.extra}
        count = len(self.extra) + 1
        while f"@{kind}{count}" in taken:
            count += 1
        self.extra.append(Variable(f"@{kind}{count}", shape))
        return aff.of_variable(f"@{kind}{count}", shape)

    def variable(self, variable: cp.Variable) -> Affine:
        """A variable of the user as an affine expression of the program's variables."""
        return self.variables[id(variable)]


NUMBERS = re.compile(r"\[\[[-+\d.e\s\[\]]*\]\]|\[[-+\d.e\s]*\.\.\.[-+\d.e\s]*\]")
"""The entries of a constant matrix, or of a long constant vector, as CVXPY prints them: they say nothing."""


def text(expr: object) -> str:
    """The user's own expression, on one line, shortened in the middle."""
    words = NUMBERS.sub("[…]", spoken(expr))
    if len(words) <= TEXT_LIMIT:
        return words
    half = (TEXT_LIMIT - 3) // 2
    return f"{words[:half]} … {words[-half:]}"


def complex_values(expr: cp.Expression) -> str:
    """What to say about complex values."""
    return message("complex values", "real values", "split real and imaginary parts", f'"{text(expr)}"')
