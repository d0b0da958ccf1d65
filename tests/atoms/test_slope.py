"""The derivatives that atoms state themselves are those of their proxes, at kinks too."""

import pytest
import torch
from torch import Tensor

from opteq_cvx.atoms import Atom, Trait
from opteq_cvx.atoms.abs import Abs
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


def test_float32(generator: torch.Generator) -> None:
    v = torch.randn(5, generator=generator)
    found = Nonneg().slope(v, torch.ones(1), {})
    assert found.dtype is torch.float32
