"""Smoothing of degenerate programs: linear programs, kinks, solution sets that are not a point. With a stated bias.

At a vertex the solution of a linear program does not move with the cost, and its derivative is zero; on a face it is
not unique, and no derivative exists: the layer then returns the minimum-norm solution of the adjoint system and reports
its residual (`Stats.gradient_error`, GradientWarning). A smoothed program has a unique solution with a derivative that
says where it would go. It is an ordinary program: values, gradients and checks refer to it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from typing_extensions import override

from opteq_cvx.atoms import Trait, atom
from opteq_cvx.errors import InputError, message
from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.frozen import Shape
from opteq_cvx.ir.param import ParamExpr, const
from opteq_cvx.ir.program import Origin, Program, Term, Variable


class Smoothing(ABC):
    """A change of the program; instances are frozen dataclasses of options."""

    @abstractmethod
    def apply(self, program: Program) -> Program:
        """The smoothed program."""


@dataclass(frozen=True, slots=True)
class Tikhonov(Smoothing):
    """Adds ½μ‖u‖² over the user's variables: the solution is unique, and Lipschitz in the linear data with 1/μ.

    Bias, for minimization with solutions U and u₀ = argmin_{u ∈ U} ‖u‖: V ≤ V_μ ≤ V + ½μ‖u₀‖², ‖u_μ‖ ≤ ‖u₀‖,
    V(u_μ) − V ≤ ½μ(‖u₀‖² − ‖u_μ‖²), u_μ → u₀. For linear programs u_μ = u₀ for every μ below some threshold; a
    derivative other than zero needs a μ above it.
    Source: Tikhonov & Arsenin 1977; Mangasarian & Meyer, SIAM J. Control Optim. 17, 1979 (linear programs).
    """

    mu: float

    def __post_init__(self) -> None:
        _check("Tikhonov", self.mu)

    @override
    def apply(self, program: Program) -> Program:
        where = Origin("smoothing", f"Tikhonov({self.mu:g})")
        own = [v for v in program.variables if not v.name.startswith("@")]
        terms = [Term("square", aff.of_variable(v.name, v.shape), where, _weight(0.5 * self.mu, v.shape)) for v in own]
        return replace(program, terms=(*program.terms, *terms))


@dataclass(frozen=True, slots=True)
class Moreau(Smoothing):
    """Replaces each function f with kinks by its envelope f_μ(x) = min_s f(x − s) + ‖s‖²/(2μ).

    Affects the objective's terms that are neither smooth nor sets: |x| becomes Huber's function of half-width μ.
    Constraints stay as they are. Bias: f − ½μL² ≤ f_μ ≤ f for f of Lipschitz constant L, hence
    V − ½μΣL² ≤ V_μ ≤ V. Source: Moreau 1965; Bauschke & Combettes, section 12.4.
    """

    mu: float

    def __post_init__(self) -> None:
        _check("Moreau", self.mu)

    @override
    def apply(self, program: Program) -> Program:
        where = Origin("smoothing", f"Moreau({self.mu:g})")
        variables, terms, more = list(program.variables), [], []
        for i, term in enumerate(program.terms):
            traits = atom(term.atom).traits
            if traits & {Trait.SET, Trait.SMOOTH, Trait.QUADRATIC, Trait.LINEAR}:
                terms.append(term)
                continue
            name, shape = f"@moreau{i}", term.arg.shape
            variables.append(Variable(name, shape))
            shift = aff.of_variable(name, shape)
            terms.append(replace(term, arg=aff.add(term.arg, aff.negative(shift))))
            more.append(Term("square", shift, where, _weight(0.5 / self.mu, shape)))
        return replace(program, variables=tuple(variables), terms=(*terms, *more))


def _weight(value: float, shape: Shape) -> ParamExpr:
    return act.spread(const(value), shape)


def _check(name: str, mu: float) -> None:
    if not mu > 0:
        raise InputError(message(f"{name}({mu})", "a positive number", f"write e.g. {name}(1e-3)"))
