"""Checking: exact solvers, reference gradients, certificates, laws for any atom. Names load on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opteq_cvx.verify.answer import Exact, ExactStatus
    from opteq_cvx.verify.certificates import DistanceBound, distance_bound
    from opteq_cvx.verify.exact import solve_exact
    from opteq_cvx.verify.laws import check_atom
    from opteq_cvx.verify.report import GradientRow, Report, SampleRow
    from opteq_cvx.verify.run import verify

__all__ = [
    "DistanceBound",
    "Exact",
    "ExactStatus",
    "GradientRow",
    "Report",
    "SampleRow",
    "check_atom",
    "distance_bound",
    "solve_exact",
    "verify",
]

_HOME = {
    "DistanceBound": "certificates",
    "Exact": "answer",
    "ExactStatus": "answer",
    "GradientRow": "report",
    "Report": "report",
    "SampleRow": "report",
    "check_atom": "laws",
    "distance_bound": "certificates",
    "solve_exact": "exact",
    "verify": "run",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it: atoms are checked without importing the layer."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
