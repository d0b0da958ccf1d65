"""The Cholesky ball's own derivative: that of its operations, to second order, in every mode."""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from opteq_cvx.weights.ball import MODERATE, contraction

SHAPES = [(6, 4), (4, 6), (5, 5), (1, 3)]


def matrix(shape: tuple[int, int], scale: float = 1.0) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return scale * torch.randn(shape, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_first_and_second_derivatives(shape: tuple[int, int]) -> None:
    A = matrix(shape).requires_grad_()
    assert torch.autograd.gradcheck(contraction, A)
    assert torch.autograd.gradgradcheck(contraction, A)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 0.1 * MODERATE])
def test_the_derivative_at_small_and_large_weights_is_that_of_the_singular_values(scale: float) -> None:
    """⟨G, dW⟩ along A itself: W has the singular values s/√(1 + s²), so d‖W‖²_F = 2 Σ s²/(1 + s²)² along A."""
    A = matrix((5, 3), scale).requires_grad_()
    (grad,) = torch.autograd.grad(contraction(A).square().sum(), A)
    s = torch.linalg.svdvals(A.detach())
    want = (2 * s**2 / (1 + s**2) ** 2).sum()
    torch.testing.assert_close((grad * A.detach()).sum(), want, atol=0, rtol=1e-8)


def test_forward_mode_and_transforms_agree_with_reverse_mode() -> None:
    A, T, G = matrix((6, 4)), matrix((6, 4)).flip(0), matrix((6, 4)).roll(1, 0)
    leaf = A.clone().requires_grad_()
    (grad,) = torch.autograd.grad(contraction(leaf), leaf, G)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(contraction(forward_ad.make_dual(A, T))).tangent
    moved = torch.func.jvp(contraction, (A,), (T,))[1]
    torch.testing.assert_close(dual, moved)
    torch.testing.assert_close((grad * T).sum(), (G * moved).sum())
    batch = torch.func.vmap(contraction)(torch.stack([A, T]))
    torch.testing.assert_close(batch, torch.stack([contraction(A), contraction(T)]))
