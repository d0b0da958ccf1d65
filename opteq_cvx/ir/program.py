"""Program: what a network computes, as frozen data: terms over linear maps of variables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from typing_extensions import override

from opteq_cvx.ir.frozen import EMPTY, Frozen, FrozenDict, Shape
from opteq_cvx.ir.linmap import LinearMap
from opteq_cvx.ir.param import Leaf, ParamExpr

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, eq=False)
class Origin(Frozen):
    """Where a piece comes from: `where` is "objective[1]" or "constraint[0]", `text` the user's own words."""

    where: str
    text: str

    @override
    def __str__(self) -> str:
        return f'{self.where} "{self.text}"'


@dataclass(frozen=True, slots=True, eq=False)
class Variable(Frozen):
    """An unknown of the program."""

    name: str
    shape: Shape


@dataclass(frozen=True, slots=True, eq=False)
class Affine(Frozen):
    """Σ_v K_v(θ) v + b(θ): one linear map per variable name, and an offset of shape `shape`."""

    parts: tuple[tuple[str, LinearMap], ...]
    offset: ParamExpr

    @property
    def shape(self) -> Shape:
        return self.offset.shape

    def map_of(self, variable: str) -> LinearMap | None:
        """The map of one variable, or None when it does not occur."""
        return next((m for name, m in self.parts if name == variable), None)


@dataclass(frozen=True, slots=True, eq=False)
class Term(Frozen):
    """⟨weight, f(K(θ) x + b(θ); static, data)⟩ with f the atom named `atom`.

    `weight` has f's output shape and is nonnegative (None means 1; sets have no weight). `static` holds
    compile-time attributes (axis, k, p), `data` ParamExprs (huber's M, bounds, a quadratic's matrix).
    """

    atom: str
    arg: Affine
    origin: Origin
    weight: ParamExpr | None = None
    static: FrozenDict = EMPTY
    data: FrozenDict = EMPTY  # str -> ParamExpr


@dataclass(frozen=True, slots=True, eq=False)
class Dual(Frozen):
    """One dual variable of a constraint: factor · map(‖y‖), y the multiplier of the constraint's first term.

    `norm` is "l1", "l2" or "linf" along `axes`, which are kept with length 1, or "" where y itself is meant: y is
    λ times a subgradient of the norm that the constraint bounds, so that its dual norm is λ.
    """

    map: LinearMap
    norm: str = ""
    axes: tuple[int, ...] = ()
    factor: ParamExpr | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Constraint(Frozen):
    """One user constraint: the indices of its terms in `Program.terms`, its kind and its shape.

    `duals` are its dual variables with CVXPY's signs; `joined`, where there are several, one row of all for each cone.
    """

    origin: Origin
    kind: str  # "equality", "inequality", "soc", "psd", "exp", "pow", …
    shape: Shape
    terms: tuple[int, ...]
    duals: tuple[Dual, ...] = ()
    joined: Dual | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Output(Frozen):
    """A value the layer returns: an affine expression of the variables, to which `imaginary` adds i times another.

    With `function` "exp", of a geometric program, the exponential of it.
    """

    name: str
    value: Affine
    imaginary: Affine | None = None
    function: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class DualOutput(Frozen):
    """A dual variable that the layer returns at `position`: part of a constraint, or all parts joined (None)."""

    name: str
    position: int
    constraint: int
    part: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Tie(Frozen):
    """The parameter named `parameter`, of stage TIED, has the value of an affine expression of the variables."""

    parameter: str
    value: Affine


@dataclass(frozen=True, slots=True, eq=False)
class Program(Frozen):
    """minimize offset + Σ terms over `variables`; `sign` is −1 when the user wrote Maximize.

    `parameters` are in the user's order: inputs first as the layer's positional arguments, then weights, then tied
    ones. With `ties` it means an equilibrium: the variables minimize while the tied parameters are held at the values
    that the ties give them. Several programs tied together are one Program, the sum of their objectives.
    `dual_outputs` stand among the returned values at their positions, `outputs` at the others.
    """

    variables: tuple[Variable, ...]
    parameters: tuple[Leaf, ...]
    terms: tuple[Term, ...]
    offset: ParamExpr
    outputs: tuple[Output, ...]
    constraints: tuple[Constraint, ...] = ()
    sign: int = 1
    dual_outputs: tuple[DualOutput, ...] = ()
    ties: tuple[Tie, ...] = ()

    def _repr_latex_(self) -> str:
        """What a notebook shows."""
        from opteq_cvx.ir import latex  # the writer reads this module

        return f"$$\\displaystyle {latex.program(self)}$$"

    @property
    def returned(self) -> tuple[str, ...]:
        """The names of the returned values, in order."""
        names = [o.name for o in self.outputs]
        for dual in self.dual_outputs:  # in the order of positions
            names.insert(dual.position, dual.name)
        return tuple(names)

    def affines(self, values: Sequence[Value]) -> tuple[Value, ...]:
        """Of returned values, those of `outputs`: without the dual variables."""
        skipped = {d.position for d in self.dual_outputs}
        return tuple(v for i, v in enumerate(values) if i not in skipped)

    def shape_of(self, variable: str) -> Shape:
        """The shape of a variable by name."""
        return next(v.shape for v in self.variables if v.name == variable)
