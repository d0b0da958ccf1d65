"""Settle: check a value for a weight and put it where its parametrization reaches, with a warning."""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from opteq_cvx.errors import InputError, message
from opteq_cvx.ir.param import Leaf
from opteq_cvx.weights import kernels
from opteq_cvx.weights.attributes import read
from opteq_cvx.weights.bounds import certified, exact
from opteq_cvx.weights.composite import Composite

ROUNDING = 1e-9
"""Relative distance from the set that is corrected without a word."""


Numbers = npt.NDArray[Any] | float | Sequence[Any]
"""What NumPy makes an array of: an array, a number, nested lists."""


_PACKAGE = __name__.split(".")[0]


class WeightWarning(UserWarning):
    """The value given for a weight was changed to satisfy its attributes."""


def checked(leaf: Leaf, value: Numbers) -> Tensor:
    """`value` as a float64 tensor of the weight's shape; a number fills it.

    Raises:
        InputError: another shape, not numbers, NaN or infinity.
    """
    origin = f'Weight "{leaf.name}"'
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        found = f"a value of type {type(value).__name__}"
        raise InputError(message(found, f"an array of shape {leaf.shape}", "pass numbers", origin)) from error
    if array.shape not in (leaf.shape, ()):
        fix = "pass an array of that shape, or one number for all entries"
        raise InputError(message(f"a value of shape {array.shape}", f"shape {leaf.shape}", fix, origin))
    if not np.isfinite(array).all():
        raise InputError(message("a value with NaN or infinity", "finite numbers", "clean the data", origin))
    return torch.tensor(np.broadcast_to(array, leaf.shape), dtype=torch.float64)


def settle(leaf: Leaf, part: Composite | None, value: Tensor) -> Tensor:
    """The point next to `value` that the weight's parametrization reaches.

    Warns:
        WeightWarning: the value lies outside the weight's set, or on the boundary of an open parametrization.
    """
    if part is None:
        return value
    projected = part.project(value)
    moved = part.inside(projected)
    slack = ROUNDING * (1.0 + float(value.abs().max()))
    outside, inward = (float((a - b).abs().max()) for a, b in ((projected, value), (moved, projected)))
    text = f'Weight "{leaf.name}" ({read(leaf).text})'
    if outside > slack:
        change = float((moved - value).abs().max())
        found = f"the value lies outside the set and was projected onto it (largest change {change:.2g})"
        _warn(message(found, "a value that has the attributes", "pass such a value", text))
    elif inward > 0.0:
        found = f"the value lies on the boundary, where training would stay, and was moved inside by {inward:.2g}"
        _warn(message(found, "a value inside the set", "pass such a value", text))
    return moved


def _warn(text: str) -> None:
    """Warn at the first line outside this package: the user's, however deep the call."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, WeightWarning, stacklevel=level)


def admit(leaf: Leaf, part: Composite | None, value: Tensor) -> Tensor:
    """`value` with a rounding error's worth of its attributes corrected; it is not moved off a boundary.

    Raises:
        InputError: the value lacks an attribute by more than ROUNDING.
    """
    if part is None:
        return value
    kept = part.without_norm().project(value)
    slack = ROUNDING * (1.0 + float(value.abs().max()))
    a = read(leaf)
    outside = float((kept - value).abs().max()) > slack
    if not outside and a.norm is not None:
        bounds = (certified, exact) if kept.ndim == 2 else (kernels.bound, kernels.least)
        outside = all(float(bound(kept)) > a.norm * (1 + ROUNDING) for bound in bounds)
    if outside:
        fix = "assign a value that has the attributes, or pass it as init= to have it projected"
        found = "the assigned value does not have the weight's attributes"
        raise InputError(message(found, a.text, fix, f'Weight "{leaf.name}"'))
    return kept
