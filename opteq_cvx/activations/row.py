"""One activation: σ = prox_f, with f, the primitive σ̃ and the Lipschitz constant of σ."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opteq_cvx.errors import CompileError, message

Scalar = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Activation:
    """One row of the table.

    Attributes:
        name: how `oc.activation` calls it.
        sigma: σ.
        slope: σ'.
        f: the convex function with σ = prox_f.
        primitive: σ̃, with σ̃' = σ and the constant that (3.1) fixes.
        lipschitz: of σ.
        lower: the lower end of f's domain.
        upper: its upper end.
        vector: whether σ acts along the last axis; f and σ̃ keep it with length 1.
    """

    name: str
    sigma: Scalar
    slope: Scalar
    f: Scalar
    primitive: Scalar
    lipschitz: float = 1.0
    lower: float = -math.inf
    upper: float = math.inf
    vector: bool = False

    @property
    def simplex(self) -> bool:
        """Whether the domain of f is the simplex along the last axis."""
        return self.vector and self.upper == 1.0

    def conjugate_at(self, a: Tensor) -> Tensor:
        """f*(a − σ(a)), by (3.2)."""
        s = self.sigma(a)
        return self.primitive(a) - 0.5 * s * s


def inside(y: Tensor, lower: float, upper: float, value: Scalar) -> Tensor:
    """`value` on [lower, upper], +inf elsewhere; NaN stays NaN."""
    safe = y.clamp(lower, upper)
    return torch.where((y < lower) | (y > upper), torch.inf, value(safe))


def stretched(row: Activation, beta: float) -> Activation:
    """σ(βa)/β, β > 0: f(βy)/β², of the same Lipschitz constant."""
    if beta == 1.0:
        return row
    return replace(
        row,
        sigma=lambda a: row.sigma(beta * a) / beta,
        slope=lambda a: row.slope(beta * a),
        f=lambda y: row.f(beta * y) / beta**2,
        primitive=lambda a: row.primitive(beta * a) / beta**2,
        lower=row.lower / beta,
        upper=row.upper / beta,
    )


def refuse(name: str, found: str, expected: str) -> CompileError:
    return CompileError(message(f"activation {name!r}: {found}", expected, "choose another one"))
