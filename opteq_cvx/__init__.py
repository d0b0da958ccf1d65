"""Network layers declared as convex programs: CVXPY in, a verified proximal network in PyTorch out.

Names load on first use: importing the package imports neither torch nor CVXPY, and loading a layer from
disk never imports CVXPY.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from opteq_cvx.adjoint import EquilibriumPropagation, Implicit, Truncated, Unrolled
    from opteq_cvx.bench import Bench, bench
    from opteq_cvx.bridge import BlackBoxLayer, CvxpyLayer
    from opteq_cvx.bridge.register import register
    from opteq_cvx.compile import compile, explain
    from opteq_cvx.coupling import HSIC
    from opteq_cvx.declare import (
        Input,
        Selecting,
        Tied,
        Weight,
        activation,
        average,
        avg_pool2d,
        branches,
        conv2d,
        conv2d_matrix,
        conv_transpose2d,
        cycle,
        differences2d,
        orthogonal,
        priors,
        tied,
        unit,
    )
    from opteq_cvx.energies import UnitEnergies, averaging_bound, dual_energy, unit_energies
    from opteq_cvx.errors import (
        CompileError,
        CouplingWarning,
        DTypeError,
        FileError,
        GradientWarning,
        InputError,
        MissingExtraError,
        NotConvexError,
        OpteqError,
        SolveError,
        SolveWarning,
        UnsupportedError,
    )
    from opteq_cvx.io import load, save
    from opteq_cvx.iterate import (
        Accelerated,
        Anderson,
        BiGSAM,
        Compiled,
        Halpern,
        Inertial,
        Plain,
        RestartedHalpern,
        SequentialAveraging,
    )
    from opteq_cvx.layer import EquilibriumLayer, Factors
    from opteq_cvx.progress import progress
    from opteq_cvx.record import record
    from opteq_cvx.selection import Path
    from opteq_cvx.smoothing import Moreau, Tikhonov
    from opteq_cvx.solution import Solution
    from opteq_cvx.splitting.asked import PDHG, ClosedForm, DavisYin, DouglasRachford, ForwardBackward
    from opteq_cvx.status import Status
    from opteq_cvx.verify import Report, check_atom, verify

__version__ = "0.1.0.dev0"

__all__ = [
    "HSIC",
    "PDHG",
    "Accelerated",
    "Anderson",
    "Bench",
    "BiGSAM",
    "BlackBoxLayer",
    "ClosedForm",
    "CompileError",
    "Compiled",
    "CouplingWarning",
    "CvxpyLayer",
    "DTypeError",
    "DavisYin",
    "DouglasRachford",
    "EquilibriumLayer",
    "EquilibriumPropagation",
    "Factors",
    "FileError",
    "ForwardBackward",
    "GradientWarning",
    "Halpern",
    "Implicit",
    "Inertial",
    "Input",
    "InputError",
    "MissingExtraError",
    "Moreau",
    "NotConvexError",
    "OpteqError",
    "Path",
    "Plain",
    "Report",
    "RestartedHalpern",
    "Selecting",
    "SequentialAveraging",
    "Solution",
    "SolveError",
    "SolveWarning",
    "Status",
    "Tied",
    "Tikhonov",
    "Truncated",
    "UnitEnergies",
    "Unrolled",
    "UnsupportedError",
    "Weight",
    "activation",
    "average",
    "averaging_bound",
    "avg_pool2d",
    "bench",
    "branches",
    "check_atom",
    "compile",
    "conv2d",
    "conv2d_matrix",
    "conv_transpose2d",
    "cycle",
    "differences2d",
    "dual_energy",
    "explain",
    "load",
    "orthogonal",
    "priors",
    "progress",
    "record",
    "register",
    "save",
    "tied",
    "unit",
    "unit_energies",
    "verify",
]

_HOME = {
    "adjoint": ("EquilibriumPropagation", "Implicit", "Truncated", "Unrolled"),
    "bench": ("Bench", "bench"),
    "bridge": ("BlackBoxLayer", "CvxpyLayer", "register"),
    "compile": ("compile", "explain"),
    "coupling": ("HSIC",),
    "declare": (
        "Input",
        "Selecting",
        "Tied",
        "Weight",
        "activation",
        "average",
        "avg_pool2d",
        "branches",
        "conv2d",
        "conv2d_matrix",
        "conv_transpose2d",
        "cycle",
        "differences2d",
        "orthogonal",
        "priors",
        "tied",
        "unit",
    ),
    "energies": ("UnitEnergies", "averaging_bound", "dual_energy", "unit_energies"),
    "errors": (
        "CompileError",
        "CouplingWarning",
        "DTypeError",
        "FileError",
        "GradientWarning",
        "InputError",
        "MissingExtraError",
        "NotConvexError",
        "OpteqError",
        "SolveError",
        "SolveWarning",
        "UnsupportedError",
    ),
    "io": ("load", "save"),
    "iterate": (
        "Accelerated",
        "Anderson",
        "BiGSAM",
        "Compiled",
        "Halpern",
        "Inertial",
        "Plain",
        "RestartedHalpern",
        "SequentialAveraging",
    ),
    "layer": ("EquilibriumLayer", "Factors"),
    "progress": ("progress",),
    "record": ("record",),
    "selection": ("Path",),
    "smoothing": ("Moreau", "Tikhonov"),
    "solution": ("Solution",),
    "splitting.asked": ("PDHG", "ClosedForm", "DavisYin", "DouglasRachford", "ForwardBackward"),
    "status": ("Status",),
    "verify": ("Report", "check_atom", "verify"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


class _Package(ModuleType):
    """Keeps `oc.compile` and `oc.verify` functions: importing their modules does not rebind them."""

    @override
    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _MODULE_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
