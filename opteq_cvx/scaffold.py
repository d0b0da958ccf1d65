"""A problem file to start from: small, complete, and verified as it stands."""

from pathlib import Path

from opteq_cvx.errors import InputError, message

TEMPLATE = '''"""{title}: u* = argmin_{{u ≥ 0}} ½‖A u − x‖² + ½ρ‖u‖² + λ 1ᵀu.

Say here in a sentence or two what the layer is for. Change the objective and the constraints below: any convex program
that CVXPY accepts compiles, and what changes in the program changes in the network.

Weights: A (inputs, units), ρ > 0, λ ≥ 0. Input: x (inputs). Output: u (units).
"""

import cvxpy as cp
import torch
from torch import Tensor

import opteq_cvx as oc

SOURCE = "{title}: name the paper, or say that it is yours"


def declare(*, inputs: int = 64, units: int = 100) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Expression]]:
    """The program, its input x and its output u."""
    x = oc.Input(inputs, name="x")  # data, one value per sample
    A = oc.Weight((inputs, units), name="A", norm=1.0)  # learned; ‖A‖₂ ≤ 1 holds at every step of training
    rho = oc.Weight(name="rho", pos=True, init=0.1)
    lam = oc.Weight(name="lam", nonneg=True, init=0.01)
    u = cp.Variable(units, nonneg=True, name="u")
    fit = 0.5 * cp.sum_squares(A @ u - x) + 0.5 * rho * cp.sum_squares(u)
    return cp.Problem(cp.Minimize(fit + lam * cp.sum(u))), [x], [u]


def sample(n: int, generator: torch.Generator, *, inputs: int = 64, units: int = 100) -> tuple[Tensor]:
    """Standard normal x (n, inputs): what `opteq verify` and `opteq bench` feed the layer."""
    return (torch.randn(n, inputs, generator=generator, dtype=torch.float64),)
'''


def scaffold(path: str | Path) -> Path:
    """Write the template to `path`, a new Python file, and return it.

    Raises:
        InputError: the name is not that of a Python file, the file exists, or its folder does not.
    """
    path = Path(path)
    expected = "the path of a new Python file in a folder that exists"
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise InputError(message(f"'{path}' is not a Python file name", expected, "write for example mine.py"))
    if path.exists():
        raise InputError(message(f"'{path}' exists", expected, "choose another name; nothing was changed"))
    if not path.parent.is_dir():
        raise InputError(message(f"there is no folder '{path.parent}'", expected, "make the folder first"))
    title = path.stem.replace("_", " ").strip().capitalize()
    path.write_text(TEMPLATE.format(title=title), encoding="utf-8")
    return path
