"""Truncated gradients: the formula, the bias, and that a second derivative raises."""

import pytest
import torch
from torch import Tensor

from opteq_cvx.adjoint.truncated import Truncated
from opteq_cvx.errors import OrderError
from tests.adjoint.setting import equilibrate, function, parameters
from tests.adjoint.toys import Unit

D, B = 6, 4


def gradient(mode: Truncated | None, theta: tuple[Tensor, Tensor], g: Tensor) -> Tensor:
    M, c = theta
    x = c.clone().requires_grad_()
    z = equilibrate(Unit(D, "identity", symmetric=False), M, x, mode).z
    return torch.autograd.grad(z, x, g)[0]


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("damping", [1.0, 0.5])
def test_formula(steps: int, damping: float, generator: torch.Generator) -> None:
    """For z M + c: dL/dc = a g Σ_{k<K} ((1 − a) I + a M)ᵀ^k."""
    theta = parameters(D, B, generator, symmetric=False)
    g = torch.randn(B, D, dtype=torch.float64, generator=generator)
    mixed = (1 - damping) * torch.eye(D, dtype=torch.float64) + damping * theta[0][0].T
    wanted = sum(damping * g @ torch.linalg.matrix_power(mixed, k) for k in range(steps))
    torch.testing.assert_close(gradient(Truncated(steps=steps, damping=damping), theta, g), wanted)


def test_bias_falls_with_steps(generator: torch.Generator) -> None:
    """‖error‖ ≤ q^{k+1}‖g‖/(1 − q) for k + 1 steps. Source: the tail of the geometric series."""
    q = 0.8
    theta = parameters(D, B, generator, symmetric=False, norm=q)
    g = torch.randn(B, D, dtype=torch.float64, generator=generator)
    exact = gradient(None, theta, g)
    for steps in (1, 3, 10, 60):
        error = (gradient(Truncated(steps=steps), theta, g) - exact).norm(dim=1)
        assert (error <= q**steps / (1 - q) * g.norm(dim=1) + 1e-10).all()


def test_value_is_that_of_the_solve(generator: torch.Generator) -> None:
    M, c = parameters(D, B, generator)
    unit = Unit(D, "tanh")
    plain = equilibrate(unit, M, c, tolerance=1e-3)
    found = equilibrate(unit, M, c.clone().requires_grad_(), Truncated(steps=3), tolerance=1e-3)
    torch.testing.assert_close(found.z.detach(), plain.z, atol=1e-15, rtol=0)
    assert found.z.requires_grad


def test_second_order_raises(generator: torch.Generator) -> None:
    M, c = parameters(D, B, generator)
    m, x = M.clone().requires_grad_(), c.clone().requires_grad_()
    for unit in (Unit(D, "tanh"), Unit(D, "identity")):
        z = equilibrate(unit, m, x, Truncated()).z
        dM, dc = torch.autograd.grad(z.sum(), (m, x), create_graph=True)
        for first in (dM, dc):
            with pytest.raises(OrderError, match=r"Expected.*Fix: compile with adjoint=Implicit"):
                first.sum().backward(retain_graph=True)
    f = function(Unit(D, "tanh"), Truncated())
    with pytest.raises(OrderError):
        torch.func.jacrev(torch.func.grad(lambda x: f(M, x).sum()))(c)
    with pytest.raises(OrderError):
        torch.func.jacfwd(torch.func.grad(lambda x: f(M, x).sum()))(c)


def test_transforms_of_first_order(generator: torch.Generator) -> None:
    M, c = parameters(D, B, generator)
    f = function(Unit(D, "tanh"), Truncated(steps=2))
    x = c.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(f(M, x).sum(), x)
    torch.testing.assert_close(torch.func.grad(lambda x: f(M, x).sum())(c), wanted)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(lambda x: f(M, x[None]).sum()))(c), wanted)
    torch.testing.assert_close(torch.func.jacfwd(lambda x: f(M, x).sum())(c), wanted)
