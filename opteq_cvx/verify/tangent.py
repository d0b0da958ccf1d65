"""Curves through a parameter's value that stay in its attribute set, so that differences compare like with
like."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg as la

from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.ir.frozen import Array

BOUNDARY = 1e-6
"""An entry this close to a bound does not move; a matrix whose norm is this close to its bound only
rotates."""


@dataclass(frozen=True, slots=True)
class Curve:
    """t ↦ at(t) with at(0) the value and at'(0) = `direction` (Frobenius norm 1, or 0 where nothing may
    move)."""

    direction: Array
    at: Callable[[float], Array]


def curve(value: Array, attributes: Mapping[str, Any], lean: Array) -> Curve:
    """A curve inside the attribute set that leans towards `lean`: ⟨lean, at'(0)⟩ ≥ 0.

    Symmetric values move symmetrically, semidefinite ones by congruence (I + tM) P (I + tM)ᵀ, sparse and
    diagonal ones in their pattern, signed and bounded ones along entries away from the bound, and a matrix at
    its norm bound (or an orthogonal one) rotates: W exp(tA), A skew.
    """
    on = {name: kept for name, kept in attributes.items() if kept is not None and kept is not False}
    if "orthogonal" in on or _at_norm(value, on):
        return _rotation(value, lean)
    if "PSD" in on or "NSD" in on:
        return _congruence(value, lean)
    if unknown := set(on) & {"integer", "boolean", "complex", "imag", "hermitian"}:
        found = f"a parameter with the attribute {sorted(unknown)[0]}"
        raise UnsupportedError(message(found, "a real, continuous one", "leave it out of the gradient check"))
    direction = lean
    if "symmetric" in on:
        direction = 0.5 * (direction + direction.T)
    if "diag" in on:
        direction = direction * np.eye(value.shape[0])
    if "sparsity" in on:
        mask = np.zeros(value.shape, dtype=bool)
        mask[tuple(np.asarray(i) for i in on["sparsity"])] = True
        direction = np.where(mask, direction, 0.0)
    room = BOUNDARY * (1.0 + np.abs(value))
    if {"nonneg", "pos", "nonpos", "neg"} & set(on):
        direction = np.where(np.abs(value) > room, direction * np.minimum(np.abs(value), 1.0), 0.0)
    if "bounds" in on:
        lower, upper = (np.broadcast_to(np.asarray(b, dtype=np.float64), value.shape) for b in on["bounds"])
        slack = np.minimum(value - lower, upper - value)
        direction = np.where(slack > room, direction * np.minimum(slack, 1.0), 0.0)
    unit = _unit(direction)
    return Curve(unit, lambda t: np.asarray(value + t * unit))


def _unit(direction: Array) -> Array:
    norm = float(np.linalg.norm(direction))
    return np.asarray(direction / norm) if norm > 0.0 else direction


def _at_norm(value: Array, on: Mapping[str, Any]) -> bool:
    return "norm" in on and value.ndim == 2 and float(np.linalg.norm(value, 2)) > float(on["norm"]) * (1.0 - 1e-2)


def _rotation(value: Array, lean: Array) -> Curve:
    """W exp(tA) with A the skew part of WᵀL, normalized."""
    square = value.T @ lean
    skew = square - square.T
    norm = float(np.linalg.norm(value @ skew))
    skew = skew / norm if norm > 0.0 else skew
    return Curve(value @ skew, lambda t: np.asarray(value @ la.expm(t * skew)))


def _congruence(value: Array, lean: Array) -> Curve:
    """(I + tM) P (I + tM)ᵀ with M = ±L, normalized: ⟨L, LP + PLᵀ⟩ has the sign of P for symmetric L."""
    n = value.shape[0]
    m = 0.5 * (lean + lean.T) * (1.0 if np.trace(value) >= 0.0 else -1.0)
    norm = float(np.linalg.norm(m @ value + value @ m.T))
    m = m / norm if norm > 0.0 else m
    eye = np.eye(n)

    def at(t: float) -> Array:
        moved = (eye + t * m) @ value @ (eye + t * m).T
        return np.asarray(0.5 * (moved + moved.T))

    return Curve(m @ value + value @ m.T, at)
