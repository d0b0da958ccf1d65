"""Implicit functions: roots to rounding, and derivatives under every transform of torch.func."""

import math

import mpmath
import pytest
import torch
from torch import Tensor

from opteq_cvx.atoms import Atom, atom
from opteq_cvx.atoms.roots import fall_root, newton, wright_omega

# torch.func loads torch's table of forward derivatives, which still calls torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


def test_newton_finds_roots_of_steep_and_flat_functions() -> None:
    shift = torch.tensor([1e-8, 1.0, 1e8], dtype=torch.float64)

    def residual(x: Tensor) -> tuple[Tensor, Tensor]:
        return x**3 + x - shift, 3 * x**2 + 1

    x = newton(residual, torch.zeros_like(shift), shift)
    assert torch.allclose(x**3 + x, shift, rtol=4e-16 * 3, atol=0)


def test_without_weight_the_root_of_a_falling_power_is_the_positive_part() -> None:
    v = torch.tensor([-3.0, -0.5, 0.0, 0.5, 7.0], dtype=torch.float64)
    assert torch.equal(fall_root(v, torch.zeros_like(v), -1.0), v.clamp(min=0.0))
    x = fall_root(v, torch.full_like(v, 0.3), -1.0)  # x − 0.3/x = v
    torch.testing.assert_close(x, (v + (v * v + 1.2).sqrt()) / 2, rtol=1e-13, atol=0)


def test_newton_keeps_nan_to_its_entry() -> None:
    v = torch.tensor([1.0, math.nan], dtype=torch.float64)
    x = newton(lambda x: (x - v, torch.ones_like(x)), v - 1, v + 2)
    assert x[0] == 1.0
    assert x[1].isnan()


def test_newton_does_not_leave_a_root_that_it_starts_at() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    assert newton(lambda x: (x, torch.ones_like(x)), zero - 5.0, zero + 9.0, zero) == 0.0


def test_newton_needs_no_bisections_for_a_root_at_the_end_of_the_bracket() -> None:
    """Every step is then about half the bracket, and a rule that asks for less bisects down to rounding."""
    v = torch.tensor([206.3, -50.0, 3.0], dtype=torch.float64)
    steps = []

    def residual(s: Tensor) -> tuple[Tensor, Tensor]:
        steps.append(s)
        omega = wright_omega(v - s)
        total = omega.sum(-1, keepdim=True)
        return -total.log(), (omega / (1.0 + omega)).sum(-1, keepdim=True) / total

    high = v.logsumexp(-1, keepdim=True)
    s = newton(residual, high - 1.0 - 1e-12, high, high - 1.0 / 3.0, high.abs())
    assert float(s) == pytest.approx(205.3, rel=1e-14)  # ω(1) = 1: the largest entry has all the weight
    assert len(steps) <= 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wright_omega(dtype: torch.dtype) -> None:
    z = torch.tensor([-30.0, -3.0, -1.5, -1.0, 0.0, 1.0, 2.9, 3.1, 20.0, 500.0], dtype=dtype)
    exact = [float(mpmath.lambertw(mpmath.exp(mpmath.mpf(float(a)))).real) for a in z]
    error = (wright_omega(z).double() / torch.tensor(exact, dtype=torch.float64) - 1.0).abs()
    assert float(error.max()) <= 20 * torch.finfo(dtype).eps
    assert wright_omega(torch.tensor(-math.inf, dtype=dtype)) == 0.0


VECTORS: dict[str, tuple[Atom, int]] = {
    "exp": (atom("exp")(), 3),
    "log_sum_exp": (atom("log_sum_exp")(), 4),
    "kl_div": (atom("kl_div")(), 2),
    "exp_cone": (atom("exp_cone")(), 3),
}


@pytest.mark.parametrize("name", VECTORS)
def test_transforms_agree(name: str) -> None:
    f, n = VECTORS[name]
    v = torch.randn(5, n, dtype=torch.float64)
    step = torch.full((1,), 0.7, dtype=torch.float64)

    def prox(v: Tensor) -> Tensor:
        return f.prox(v, step, {})

    reverse = torch.func.vmap(torch.func.jacrev(prox))(v)
    forward = torch.func.vmap(torch.func.jacfwd(prox))(v)
    assert torch.allclose(reverse, forward, rtol=1e-12, atol=1e-12)
    assert torch.allclose(reverse, reverse.mT, rtol=1e-12, atol=1e-12)
    assert torch.allclose(torch.func.vmap(prox)(v), prox(v), rtol=1e-15, atol=1e-15)

    def loss(v: Tensor) -> Tensor:
        return (prox(v) ** 3).sum()

    twice = torch.func.vmap(torch.func.jacfwd(torch.func.jacrev(loss)))(v)
    other = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(loss)))(v)
    assert torch.allclose(twice, other, rtol=1e-9, atol=1e-9)
