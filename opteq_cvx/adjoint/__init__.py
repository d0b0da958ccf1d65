"""Adjoint modes: how the output of a layer gets its gradient."""

from opteq_cvx.adjoint.implicit import Implicit
from opteq_cvx.adjoint.mode import AdjointMode, Equilibrated

__all__ = ["AdjointMode", "Equilibrated", "Implicit"]
