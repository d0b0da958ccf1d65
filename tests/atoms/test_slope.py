"""The derivatives that atoms state themselves are those of their proxes, at kinks too."""

import pytest
import torch
from torch import Tensor

from opteq_cvx.atoms import Atom, Trait
from opteq_cvx.atoms.abs import Abs
from opteq_cvx.atoms.box import Box
from opteq_cvx.atoms.nonneg import Nonneg
from opteq_cvx.atoms.nonpos import Nonpos
from opteq_cvx.splitting.forward_backward import PROJECTORS


def points(f: Atom, step: Tensor, generator: torch.Generator) -> Tensor:
    """Random entries, and every kink."""
    v = torch.randn(7, 11, dtype=torch.float64, generator=generator)
    return torch.cat([v, *(k.expand_as(v) for k in f.kinks(v, step, {}))])


@pytest.mark.parametrize("f", [Abs(), Nonneg(), Nonpos()], ids=lambda f: f.name)
@pytest.mark.parametrize("step", [0.0, 0.3, 1.0])
def test_slope_is_the_derivative_of_the_prox(f: Atom, step: float, generator: torch.Generator) -> None:
    assert Trait.SEPARABLE in f.traits
    size = torch.full((1, 1), step, dtype=torch.float64)
    v = points(f, size, generator).requires_grad_()
    (wanted,) = torch.autograd.grad(f.prox(v, size, {}).sum(), v)
    found = f.slope(v.detach(), size, {})
    assert found is not None
    assert torch.equal(found, wanted)
    if f.name in PROJECTORS:
        assert set(found.unique().tolist()) <= {0.0, 1.0}


def test_slope_of_a_box_is_the_derivative_of_its_prox_at_bounds_and_beyond(generator: torch.Generator) -> None:
    """Bounds of each sample, infinite ones, and none between: the derivative is 0 on a bound, 1 strictly inside."""
    low = torch.tensor([-1.0, -torch.inf, -0.2, 0.5], dtype=torch.float64)
    data = {"lower": low, "upper": torch.tensor([1.0, 0.3, torch.inf, 0.5], dtype=torch.float64)}
    v = torch.randn(9, 4, dtype=torch.float64, generator=generator)
    v = torch.cat([v, *(k[:1] for k in Box().kinks(v, torch.ones(1), data))]).requires_grad_()
    (wanted,) = torch.autograd.grad(Box().prox(v, torch.ones(1), data).sum(), v)
    found = Box().slope(v.detach(), torch.ones(1), data)
    assert torch.equal(found, wanted)
    assert found.any()


def test_float32(generator: torch.Generator) -> None:
    v = torch.randn(5, generator=generator)
    found = Nonneg().slope(v, torch.ones(1), {})
    assert found.dtype is torch.float32
