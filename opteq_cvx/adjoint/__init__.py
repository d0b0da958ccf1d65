"""Adjoint modes: how the output of a layer gets its gradient."""

from opteq_cvx.adjoint.equilibrium_propagation import EquilibriumPropagation
from opteq_cvx.adjoint.implicit import Implicit
from opteq_cvx.adjoint.krylov.cg import CG
from opteq_cvx.adjoint.krylov.direct import Direct
from opteq_cvx.adjoint.krylov.gmres import GMRES
from opteq_cvx.adjoint.krylov.lsmr import LSMR
from opteq_cvx.adjoint.krylov.neumann import Neumann
from opteq_cvx.adjoint.mode import AdjointMode, Equilibrated
from opteq_cvx.adjoint.truncated import Truncated
from opteq_cvx.adjoint.unrolled import Unrolled

__all__ = [
    "CG",
    "GMRES",
    "LSMR",
    "AdjointMode",
    "Direct",
    "Equilibrated",
    "EquilibriumPropagation",
    "Implicit",
    "Neumann",
    "Truncated",
    "Unrolled",
]
