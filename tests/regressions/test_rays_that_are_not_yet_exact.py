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
    return bool(certify(blocks, (0.0 * k, flat, k, flat), at, flat, ray, flat, 1e-6).unbounded)


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


@pytest.mark.parametrize("multiplier", [1.0, 30.0])
def test_what_leaves_the_domain_may_be_all_that_falls(multiplier: float) -> None:
    """cx₁ on x ≥ 0 has the minimum 0. Along a ray (1, −part) it falls by what leaves the domain."""
    k = torch.eye(2, dtype=torch.float64)[None]
    q = multiplier * torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    flat: Tensor = torch.zeros(1, 2, dtype=torch.float64)
    blocks = [Block(atom("nonneg")(), np.arange(2), ORIGIN)]
    for part in np.geomspace(1e-12, 1.0, 37):
        ray = torch.tensor([[1.0, -float(part)]], dtype=torch.float64)
        assert not bool(certify(blocks, (0.0 * k, q, k, flat), flat, -q, ray, flat, 1e-6).unbounded), part


@pytest.mark.parametrize("far", [1e3, 1e4, 1e6])
def test_a_square_counts_along_the_way_that_a_far_point_has_come(far: float) -> None:
    """exp(−x₁) + ¼x₀² − 100x₀ is bounded below: along (part, 1) the square ends what falls, beyond 10⁸ units."""
    k: Tensor = torch.tensor([[[0.0, -1.0], [-100.0, 0.0], [-100.0, 0.0]]], dtype=torch.float64)
    blocks = [
        Block(atom("exp")(), np.array([0]), ORIGIN),
        Block(atom("max").from_static({"axes": (-1,)}), np.array([1, 2]), ORIGIN),
    ]
    p, zero = torch.diag(torch.tensor([0.5, 0.0], dtype=torch.float64))[None], torch.zeros(1, 3, dtype=torch.float64)
    at = torch.tensor([[-far, 0.0, 0.0]], dtype=torch.float64)
    for part in [1.1e-6, 1.5e-6, 1.9e-6, *np.geomspace(1e-12, 1.0, 13)]:
        ray = torch.tensor([[float(part), 1.0]], dtype=torch.float64)
        theta = (p, zero[:, :2], k, zero)
        assert not bool(certify(blocks, theta, at, zero, ray, zero, 1e-6).unbounded), part
