"""Program: what a network computes, as frozen data: terms over linear maps of variables."""

from dataclasses import dataclass

from typing_extensions import override

from opteq_cvx.ir.frozen import EMPTY, Frozen, FrozenDict, Shape
from opteq_cvx.ir.linmap import LinearMap
from opteq_cvx.ir.param import Leaf, ParamExpr


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
class Constraint(Frozen):
    """One user constraint: the indices of its terms in `Program.terms`, its kind and its shape, for duals."""

    origin: Origin
    kind: str  # "equality", "inequality", "soc", "psd", "exp", "pow", …
    shape: Shape
    terms: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Output(Frozen):
    """A value the layer returns: an affine expression of the variables."""

    name: str
    value: Affine


@dataclass(frozen=True, slots=True, eq=False)
class Program(Frozen):
    """minimize offset + Σ terms over `variables`; `sign` is −1 when the user wrote Maximize.

    `parameters` are in the user's order: inputs first as the layer's positional arguments, then weights.
    """

    variables: tuple[Variable, ...]
    parameters: tuple[Leaf, ...]
    terms: tuple[Term, ...]
    offset: ParamExpr
    outputs: tuple[Output, ...]
    constraints: tuple[Constraint, ...] = ()
    sign: int = 1

    def shape_of(self, variable: str) -> Shape:
        """The shape of a variable by name."""
        return next(v.shape for v in self.variables if v.name == variable)
