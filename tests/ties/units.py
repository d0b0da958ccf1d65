"""Declarations for the tests of ties: units with seeded weights, and their fixed points by plain NumPy iteration."""

from collections.abc import Sequence

import numpy as np
import torch

import opteq_cvx as oc
from opteq_cvx.activations import table
from opteq_cvx.declare import Unit

M, N, K = 4, 5, 3


def unit(k: int, x: oc.Input, *, m: int = M, n: int = N, norm: float = 0.9, name: str = "relu") -> Unit:
    """Unit number k with W (m, n) near its norm bound, on the input x."""
    rng = np.random.default_rng(k)
    raw = rng.normal(size=(m, n))
    W = oc.Weight((m, n), name=f"W{k}", norm=norm, init=0.97 * norm * raw / np.linalg.norm(raw, 2))
    U = oc.Weight((m, x.shape[0]), name=f"U{k}", init=rng.normal(size=(m, x.shape[0])))
    b = oc.Weight(m, name=f"b{k}", init=rng.normal(size=m))
    return oc.unit(W, U @ x + b, name, name=f"u{k}")


def numbers(units: Sequence[Unit], x: oc.Input, value: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """(W, c, activation) of each unit at one sample."""
    x.value = value
    return [(np.array(u.W.value), np.array(u.c.value), u.function.name) for u in units]


def sigma(name: str, a: np.ndarray) -> np.ndarray:
    """The activation, by the table that `tests/test_activations.py` checks."""
    return table(name).sigma(torch.as_tensor(a)).numpy()


def cycle_point(
    data: Sequence[tuple[np.ndarray, np.ndarray, str]], alpha: float = 1.0, steps: int = 20_000
) -> np.ndarray:
    """z = T_L∘…∘T_1(z) of averaged layers, by iterating the composition."""
    z = np.zeros(data[0][0].shape[1])
    for _ in range(steps):
        before = z
        for W, c, name in data:
            z = (1.0 - alpha) * z + alpha * W.T @ sigma(name, W @ z + c)
        if np.abs(z - before).max() < 1e-15:
            break
    return z


def average_point(data: Sequence[tuple[np.ndarray, np.ndarray, str]], omega: Sequence[float]) -> np.ndarray:
    """z = Σ ω_k T_k(z), by iteration."""
    z = np.zeros(data[0][0].shape[1])
    for _ in range(20_000):
        before = z
        z = sum(w * (W.T @ sigma(name, W @ z + c)) for w, (W, c, name) in zip(omega, data, strict=True))
        if np.abs(z - before).max() < 1e-15:
            break
    return z
