"""A drift holds what other coordinates still lack: what falls for a while along that small part is not unbounded."""

import numpy as np
import pytest
import torch
from torch import Tensor

from opteq_cvx.atoms import Atom, atom
from opteq_cvx.ir.program import Origin
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.infeasibility import certify

ORIGIN = Origin("objective[0]", "f")
AWAY = 0.5  # how far the entries of the second function are from its minimum

BOUNDED: dict[str, tuple[Atom, int]] = {
    "|x|": (atom("abs")(), 3),
    "‖x‖∞": (atom("norm_inf")(), 3),
    "‖x‖₂": (atom("norm2")(), 3),
    "max(x, 0)": (atom("pos")(), 3),
    "ln(1 + exp(x))": (atom("logistic")(), 3),
}


def certified(second: Atom, entries: int, part: float, sign: float) -> bool:
    """Whether min exp(x) + f(y) is called unbounded by the drift (−1, sign · part) of (x, y)."""
    n = 1 + entries
    blocks = [Block(atom("exp")(), np.array([0]), ORIGIN), Block(second, np.arange(1, n), ORIGIN)]
    k = torch.eye(n, dtype=torch.float64)[None]
    flat: Tensor = torch.zeros(1, n, dtype=torch.float64)
    at, ray = flat + AWAY, flat + sign * part
    at[:, 0], ray[:, 0] = -16.0, -1.0
    return bool(certify(blocks, (0.0 * k, flat, k, flat), at, ray, flat, 1e-6).unbounded)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", BOUNDED)
def test_a_small_part_of_a_drift_proves_nothing(name: str, sign: float) -> None:
    """exp(x) + f(y) is bounded below. Along a part of 4e-6, y is on the way to the minimum of f for 10⁵ units."""
    f, entries = BOUNDED[name]
    found = {part: certified(f, entries, float(part), sign) for part in np.geomspace(1e-12, 1.0, 19)}
    assert not [part for part, wrong in found.items() if wrong]


def test_a_function_that_falls_for_ever_along_a_small_part_is_a_proof() -> None:
    """exp(x) − min(y) falls along y, with the slope of that part."""
    assert certified(atom("max").from_static({"axes": (-1,)}), 3, 1e-4, -1.0)
