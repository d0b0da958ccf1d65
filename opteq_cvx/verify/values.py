"""Give CVXPY leaves values for the time of one solve, and put the old ones back."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from torch import Tensor

from opteq_cvx.errors import InputError, message
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.program import Program

Values = Mapping[cp.Parameter, Array]
"""A value for each parameter of a problem (CVXPY leaves hash by identity, so they are safe as keys)."""

ATTRIBUTE_SLACK = 1e-6
"""Relative distance to a parameter's attribute set that counts as rounding (float32 weights reach 1e-7)."""


def dense(value: object) -> Array:
    """A CVXPY value, dense or sparse, as a float64 array."""
    if isinstance(value, sp.sparray | sp.spmatrix):
        return np.asarray(value.toarray(), dtype=np.float64)
    return np.array(value, dtype=np.float64)


def project(leaf: Any, value: Array) -> Any:
    """`leaf.project(value)`, which CVXPY leaves untyped: the nearest value with one attribute."""
    return leaf.project(value)


def violation(constraint: Any) -> Any:
    """`constraint.violation()`, which CVXPY leaves untyped."""
    return constraint.violation()


def admissible(parameter: cp.Parameter, value: Array) -> Array:
    """Project a rounding error's worth onto the parameter's attribute set, in float64.

    Raises:
        InputError: the value violates the attribute by more than rounding, or is not finite.
    """
    if value.shape != parameter.shape or not np.isfinite(value).all():
        found = f"a value of shape {value.shape}" + ("" if np.isfinite(value).all() else " that is not finite")
        raise InputError(message(found, f"a finite array of shape {parameter.shape}", "clean the data", parameter))
    attributes = parameter.attributes
    if attributes["sparsity"] or attributes["diag"]:
        mask = np.eye(value.shape[0], dtype=bool) if attributes["diag"] else np.zeros(value.shape, dtype=bool)
        if attributes["sparsity"]:
            mask[parameter.sparse_idx] = True
        projected = np.where(mask, value, 0.0)
    else:
        projected = _nearest(parameter, value)
    gap = float(np.max(np.abs(projected - value), initial=0.0))
    if gap > ATTRIBUTE_SLACK * (1.0 + float(np.max(np.abs(value), initial=0.0))):
        kept = ", ".join(name for name, on in attributes.items() if on)
        found = f"a value at distance {gap:.1e} from its attributes ({kept})"
        raise InputError(message(found, "a value that has them", "fix the data or the declaration", parameter))
    return projected


def _nearest(parameter: cp.Parameter, value: Array) -> Array:
    """The projection; CVXPY projects onto one attribute only, so pairs (symmetric and a sign) are done
    here."""
    on = {name for name, kept in parameter.attributes.items() if kept is not None and kept is not False}
    if len(on) <= 1:
        return dense(project(parameter, value))
    if on & {"symmetric", "PSD", "NSD"}:
        value = 0.5 * (value + value.T)
    if on & {"nonneg", "pos"}:
        value = np.maximum(value, 0.0)
    if on & {"nonpos", "neg"}:
        value = np.minimum(value, 0.0)
    return value


def assign(parameter: cp.Parameter, value: Array) -> None:
    """Set a parameter's value after projecting it onto its attribute; InputError where it does not fit."""
    projected = admissible(parameter, value)
    attributes = parameter.attributes
    try:
        if attributes["sparsity"]:
            entries = projected[parameter.sparse_idx]
            parameter.value_sparse = sp.coo_array((entries, parameter.sparse_idx), shape=parameter.shape)
        elif attributes["diag"]:
            parameter.value = sp.diags_array([np.diag(projected)], offsets=[0])
        else:
            parameter.value = projected
    except ValueError as error:
        raise InputError(message(str(error), "a value with its attributes", "fix the data", parameter)) from error


@contextmanager
def assigned(values: Values) -> Iterator[None]:
    """Hold `values` in their parameters inside the block; the old values come back at its end."""
    with restored(list(values)):
        for parameter, value in values.items():
            assign(parameter, value)
        yield


@contextmanager
def restored(leaves: Sequence[cp.Parameter | cp.Variable]) -> Iterator[None]:
    """Put the present values of parameters and variables back at the end of the block."""
    old = [leaf._value for leaf in leaves]
    try:
        yield
    finally:
        for leaf, value in zip(leaves, old, strict=True):
            leaf._value = value


def undressed(program: Program, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of a layer's values the affine outputs: logarithms where it returns exponentials, imaginary parts last."""
    pairs = list(zip(program.outputs, program.affines(values), strict=True))
    plain = (v.log() if o.function == "exp" else v.real if v.is_complex() else v for o, v in pairs)
    return (*plain, *(v.imag for o, v in pairs if o.imaginary is not None))
