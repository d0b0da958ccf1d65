"""What level sets and epigraphs of other atoms share: the function F that they bound, named by static attributes."""

from dataclasses import dataclass
from typing import Any

from opteq_cvx import atoms
from opteq_cvx.atoms.calculus import Summed
from opteq_cvx.atoms.contract import Atom, Data, Trait
from opteq_cvx.atoms.spectral import OfEigenvalues, OfSingularValues
from opteq_cvx.errors import CompileError, message

Options = tuple[tuple[str, Any], ...]
"""Static attributes of an atom as pairs, sorted by name."""

OF_EIGENVALUES: dict[str, tuple[str, Options]] = {
    "lambda_max": ("max", ()),
    "lambda_sum_largest": ("sum_largest", ()),
    "neg_log_det": ("neg_log", ()),
    "neg_von_neumann_entr": ("neg_entr", ()),
    "tr_inv": ("power", (("p", -1.0),)),
}
"""Functions of symmetric matrices, by the function of their eigenvalues (of all of them, or summed)."""

OF_SINGULAR_VALUES: dict[str, tuple[str, Options]] = {"norm_nuc": ("abs", ()), "sigma_max": ("norm_inf", ())}
"""Functions of matrices, by the function of their singular values."""

NONNEGATIVE = frozenset(
    {
        "abs",
        "deadzone",
        "exp",
        "huber",
        "kl_div",
        "logistic",
        "norm2",
        "norm_inf",
        "norm_nuc",
        "pnorm",
        "pos",
        "power",
        "quad_over_lin",
        "sigma_max",
        "sorted_l1",
        "square",
        "square_pos",
        "tr_inv",
    }
)
"""Functions whose infimum is 0: below it a level set is empty."""


@dataclass(frozen=True, slots=True)
class Bounded(Atom):
    """A set of points where F(x) = Σ weight·f(x) along `axes` is bounded.

    Attributes:
        f: the name of f's atom.
        axes: the axes of the argument along which entries meet, those that f reduces included.
        options: f's static attributes.

    Raises:
        CompileError: no atom has this name, it is a set, or an axis is not negative.
    """

    f: str
    axes: tuple[int, ...] = ()
    options: Options = ()

    def __post_init__(self) -> None:
        if Trait.SET in self.inner.traits:
            found = f"atom {self.name!r} of the set {self.f!r}"
            raise CompileError(message(found, "a function", "constrain the argument to be in the set"))
        if any(a >= 0 for a in self.axes):
            found, expected = f"atom {self.name!r} got axes={self.axes}", "negative numbers"
            raise CompileError(message(found, expected, "count axes from the end: -1 is the last one"))

    @property
    def inner(self) -> Atom:
        """f."""
        return atoms.atom(self.f).from_static(dict(self.options))

    @property
    def whole(self) -> Summed:
        """F."""
        return Summed(self.inner, self.axes)

    @property
    def spectral(self) -> tuple[type[OfEigenvalues | OfSingularValues], Summed] | None:
        """How a function of matrices follows from one of numbers, and that one; None for others."""
        of_values = OF_EIGENVALUES.get(self.f) or OF_SINGULAR_VALUES.get(self.f)
        if of_values is None:
            return None
        name, options = of_values
        lift = OfEigenvalues if self.f in OF_EIGENVALUES else OfSingularValues
        return lift, Summed(atoms.atom(name).from_static(dict((*options, *self.options))), (-1,))

    def own(self, data: Data) -> Data:
        """F's data, without the level."""
        return {k: t for k, t in data.items() if k != "level"}
