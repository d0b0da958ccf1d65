"""Multipliers far larger than the objective's slopes: a part of a ray that is small beside them proves nothing."""

import numpy as np
import pytest
import torch

from opteq_cvx.atoms import Atom, atom
from opteq_cvx.ir.program import Origin
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.infeasibility import certify

SMALL = 1e-3  # the row of the constraint: its multiplier is 1/SMALL times the slope of f
ORIGIN = Origin("objective[0]", "f")

FUNCTIONS: dict[str, Atom] = {
    "|x|": atom("abs")(),
    "exp(x)": atom("exp")(),
    "x ≥ 0 beside it": atom("nonneg")(),
    "−log(x)": atom("neg_log")(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_far_feasible_point_is_not_called_infeasible(name: str) -> None:
    """f(x) with SMALL·x ≥ 1 has the feasible point x = 1/SMALL, where every f here is finite or holds."""
    f = FUNCTIONS[name]
    blocks = [Block(f, np.array([0]), ORIGIN), Block(atom("nonneg")(), np.array([1]), ORIGIN)]
    k, b = torch.tensor([[[1.0], [SMALL]]], dtype=torch.float64), torch.tensor([[0.0, -1.0]], dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    ray = torch.tensor([[SMALL, -1.0]], dtype=torch.float64)  # Kᵀy = 0 and ⟨b, y⟩ = 1, but σ of dom f is infinite
    at = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = certify(blocks, (zero[:, None], zero, k, b), at, 0.0 * b, zero, ray, 1e-6)
    assert not bool(found.infeasible)


def test_the_same_ray_is_a_certificate_where_the_domain_ends() -> None:
    """x ≤ 0 and SMALL·x ≥ 1 contradict each other."""
    blocks = [Block(atom("nonpos")(), np.array([0]), ORIGIN), Block(atom("nonneg")(), np.array([1]), ORIGIN)]
    k, b = torch.tensor([[[1.0], [SMALL]]], dtype=torch.float64), torch.tensor([[0.0, -1.0]], dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    ray = torch.tensor([[SMALL, -1.0]], dtype=torch.float64)
    found = certify(blocks, (zero[:, None], zero, k, b), 0.0 * b, 0.0 * b, zero, ray, 1e-6)
    assert bool(found.infeasible)
