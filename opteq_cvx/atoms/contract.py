"""What an atom is: a function f with value, prox, patterns and traits. The folder is the registry.

Shapes. The argument of f has an *event* shape; tensors carry any number of batch axes before it. Axes that f
reduces are kept with length 1 (`keepdims`), in the value, in `step` and in a term's weight, so that all
broadcasts: for an elementwise f the value has the event's shape; for ‖·‖₂ of a vector it is (*batch, 1); for
column norms of a matrix (*batch, 1, n). Reduced axes are negative numbers (static field `axes`).
Functions of several arguments take them joined along the last axis: [t, x] for the second-order cone, a
trailing axis of length 2 or 3 for elementwise functions of several arguments (kl_div, exponential cone).

Derivatives at kinks: the smallest one-sided derivative (zero for relu, clip and soft threshold), as torch's
`relu` has and `clamp`, `maximum`, `minimum` have not; the building blocks are in `primitives`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, ClassVar

from torch import Tensor

from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.frozen import EMPTY, FrozenDict, Shape
from opteq_cvx.ir.param import ParamExpr
from opteq_cvx.ir.pattern import Pattern, match
from opteq_cvx.ir.program import Affine
from opteq_cvx.ir.tree import Node

Data = Mapping[str, Tensor]
"""Dynamic attributes by name (bounds, huber's M, a matrix P): (*batch, *own shape).

The batch axes are as many as the argument's, each full or of length 1; where a datum has fewer axes of its
own than the argument, axes of length 1 stand between, so that data of functions entry by entry broadcast.
"""


class Trait(Enum):
    """What planners and generated laws may rely on."""

    SEPARABLE = "acts entry by entry"
    SET = "the indicator of a convex set; its prox is a projection and ignores the step"
    CONE = "a set closed under nonnegative scaling"
    HOMOGENEOUS = "f(s x) = s f(x) for s >= 0"
    QUADRATIC = "a convex quadratic, usable as the smooth part of forward-backward"
    LINEAR = "a linear functional"
    INTERVAL = "an entrywise interval [l, u]: may be composed after any scalar prox"
    EVEN = "f(-x) = f(x)"
    STRONGLY_CONVEX = "strongly convex"
    SMOOTH = "differentiable with Lipschitz gradient"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """A CVXPY text that this atom recognizes: laws, README rows and reference programs are generated from it.

    All texts are evaluated with CVXPY's names, NumPy as `np`, and the variables and parameters below.

    Attributes:
        text: the scalar objective or the constraint ("" when the variable's attributes say it all).
        variables: name to shape.
        parameters: name to (shape, CVXPY attributes); random values respect sign, PSD, bounds.
        constraint: whether `text` is a constraint.
        attributes: name of a variable to the CVXPY attributes it is created with.
        arg: text of the atom's argument in the contract's layout.
        argmin: whether CVXPY's argmin is the prox: `arg` takes every value, and CVXPY can solve the text.
        static: the atom's static attributes.
        data: name of a datum to its text, over parameters only.
        weight: text of the term's weight, over parameters only.
        draw: range of the random values of variables, for functions with a domain.
    """

    text: str
    variables: Mapping[str, Shape] = field(default_factory=lambda: {"x": (5,)})
    parameters: Mapping[str, tuple[Shape, Mapping[str, Any]]] = field(default_factory=dict)
    constraint: bool = False
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    arg: str = "x"
    argmin: bool = True
    static: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    weight: str = "1.0"
    draw: tuple[float, float] = (-3.0, 3.0)


@dataclass(frozen=True, slots=True)
class Recognized:
    """How a node becomes a term: affine argument, static attributes, data; `scale` multiplies the weight."""

    arg: Affine
    static: FrozenDict = EMPTY
    data: FrozenDict = EMPTY
    scale: ParamExpr | None = None


class Atom(ABC):
    """A convex function. Instances are frozen dataclasses whose fields are the static attributes."""

    name: ClassVar[str]
    formula: ClassVar[str]  # one line, for tables
    cost: ClassVar[str]  # of one prox of n entries, e.g. "O(n)"
    source: ClassVar[str]  # paper and section of the prox formula
    traits: ClassVar[frozenset[Trait]]
    patterns: ClassVar[tuple[Pattern, ...]] = ()
    spellings: ClassVar[tuple[Spelling, ...]] = ()
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = ()  # static attributes that must be refused

    @classmethod
    def from_static(cls, static: Mapping[str, Any]) -> "Atom":
        """Build the instance from a term's static attributes; unknown names are refused."""
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        for name in static:
            if name not in known:
                found = f"atom {cls.name!r} got the static attribute {name!r}"
                expected = f"one of {sorted(known)}" if known else "none"
                raise CompileError(message(found, expected, f"remove {name!r}"))
        return cls(**static)

    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        """The first pattern that fits; `x` is the argument, parameters named in the pattern become data."""
        for pattern in cls.patterns:
            found = match(pattern, node)
            if found is not None and found.bound["x"].affine is not None:
                data = {k: n.param for k, n in found.bound.items() if k != "x"}
                return Recognized(found.bound["x"].affine, data=FrozenDict(data))
        return None

    @abstractmethod
    def value(self, x: Tensor, data: Data) -> Tensor:
        """f(x), reduced axes kept with length 1; +inf outside the domain (sets: 0 or +inf, to rounding)."""

    @abstractmethod
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        """argmin_x step · f(x) + ½‖x − v‖², differentiable in v, step, data; `step` broadcasts like `value`.

        A step of 0 removes the entry (returns v on the closed domain). Never mutates `v`.
        """

    def conjugate(self, y: Tensor, data: Data) -> Tensor | None:
        """f*(y), reduced axes kept; None where no closed form is known."""
        return None

    def violation(self, x: Tensor, data: Data) -> Tensor | None:
        """For sets: the distance to the set or a bound of it, reduced axes kept; None for functions."""
        return None

    def crossing(self, v: Tensor, c: Tensor, rise: float, data: Data) -> Tensor | None:
        """μ > 0 with f(prox_{μf}(v)) = c + rise·μ where f(v) > c, found without proxes; None: by the prox, as for all.

        Anything where f(v) ≤ c; not derived.
        """
        return None

    def multiplier(self, x: Tensor, y: Tensor, data: Data) -> Tensor | None:
        """For sets {F(x) ≤ c}: λ ≥ 0 with y ∈ λ ∂F(x), reduced axes kept; None where y's norm tells it, or nothing."""
        return None

    def empty(self, data: Data) -> Tensor | None:
        """For sets that depend on data: True where they are empty (one entry suffices)."""
        return None

    def prox_inplace(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        """The prox for the hot loop, without autograd: may overwrite `v`, which has the result's shape."""
        return self.prox(v, step, data)

    def slope(self, v: Tensor, step: Tensor, data: Data) -> Tensor | None:
        """For functions that act entry by entry: the derivative of the prox in v where that is one comparison, with
        the one-sided values of `prox` at kinks; None: autograd finds it."""
        return None

    def jacobian(self, v: Tensor, step: Tensor, data: Data) -> Tensor | None:
        """For functions of matrices over the last two axes: the derivative of the prox in v, symmetric, entries in C
        order, (*batch, mn, mn), with the values of `prox` at kinks; None: autograd finds it."""
        return None

    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        """Points of `v`'s shape where the prox is not differentiable, for the law of derivatives at kinks.

        Functions that act entry by entry list every kink; others give examples in the direction of `v`.
        """
        return ()
