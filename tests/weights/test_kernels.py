"""Bounds of convolutions: never below the norm of the dense matrix, tight, smooth, homogeneous; weights keep them."""

from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d, conv3d, conv_transpose2d

import opteq_cvx as oc
from opteq_cvx.weights import kernels

SIDES = st.integers(1, 4)


def dense(apply: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]) -> np.ndarray:
    """The matrix of a linear map on images of a shape, column by column."""
    basis = torch.eye(int(np.prod(shape)), dtype=torch.float64).reshape(-1, *shape)
    return apply(basis).flatten(1).T.numpy()


def supremum(K: torch.Tensor, points: int = 96) -> float:
    """max ‖K̂‖₂ on a fine grid by NumPy, the norm on the infinite grid but for 1e-3."""
    values = np.fft.fftn(K.numpy(), s=(points,) * (K.ndim - 2), axes=tuple(range(2, K.ndim)))
    return float(np.linalg.norm(np.moveaxis(values, (0, 1), (-2, -1)), 2, axis=(-2, -1)).max())


@settings(max_examples=60, deadline=None)
@given(
    o=SIDES, i=SIDES, h=SIDES, w=SIDES, rank=st.integers(0, 3), exponent=st.integers(-30, 30), seed=st.integers(0, 99)
)
def test_the_bound_is_never_below_the_norm_and_close(
    o: int, i: int, h: int, w: int, rank: int, exponent: int, seed: int
) -> None:
    """Kernels of low rank, and constant ones (rank 0), whose norm is attained by constant images."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((o, rank, 1, 1)), rng.standard_normal((rank, i * h * w))
    values = np.ones((o, i, h, w)) if rank == 0 else (factors[0][..., 0, 0] @ factors[1]).reshape(o, i, h, w)
    K = torch.as_tensor(values * 10.0**exponent)
    norm = supremum(K)
    assert norm * (1 - 1e-12) <= float(kernels.bound(K)) <= 1.2 * norm
    assert float(kernels.least(K)) <= norm * (1 + 1e-3)


MAPS = {
    "zero padding": (lambda K: lambda x: conv2d(x, K, padding=2), (2, 6, 6)),
    "no padding": (lambda K: lambda x: conv2d(x, K), (2, 6, 6)),
    "stride": (lambda K: lambda x: conv2d(x, K, stride=2, padding=1), (2, 7, 6)),
    "transposed": (lambda K: lambda x: conv_transpose2d(x, K, stride=2), (4, 4, 4)),
    "groups": (lambda K: lambda x: conv2d(x, K, padding=1, groups=2), (4, 5, 5)),
    "circular": (lambda K: lambda x: conv2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular"), K), (2, 5, 5)),
}


@pytest.mark.parametrize("name", MAPS)
def test_every_use_of_a_kernel_is_within_the_bound(name: str) -> None:
    K = torch.randn(4, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    make, shape = MAPS[name]
    assert np.linalg.norm(dense(make(K), shape), 2) <= float(kernels.bound(K))


def test_kernels_of_other_dimensions() -> None:
    K = torch.randn(3, 2, 2, 3, 2, dtype=torch.float64)
    found = np.linalg.norm(dense(lambda x: conv3d(x, K, padding=1), (2, 4, 3, 3)), 2)
    assert found <= float(kernels.bound(K))
    W = torch.randn(5, 3, dtype=torch.float64)
    assert (
        float(torch.linalg.matrix_norm(W, 2)) <= float(kernels.bound(W)) <= 1.05 * float(torch.linalg.matrix_norm(W, 2))
    )


def test_the_bound_is_homogeneous_and_smooth() -> None:
    K = torch.randn(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert float(kernels.bound(7.0 * K.detach())) == pytest.approx(7.0 * float(kernels.bound(K.detach())), rel=1e-12)
    assert torch.autograd.gradcheck(kernels.bound, (K,))
    assert torch.autograd.gradgradcheck(kernels.bound, (K,))
    Z = torch.zeros(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(kernels.bound(Z), Z)
    assert float(kernels.bound(Z.detach())) == 0.0
    assert torch.equal(g, torch.zeros_like(g))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kernel_may_use_its_bound_and_no_more(dtype: torch.dtype) -> None:
    """Pushed outward by training, the norm of the convolution comes near the bound: it never passes it."""
    K = oc.Weight((4, 4, 3, 3), name="K", norm=0.95, seed=0)
    u, x = cp.Variable((4, 6, 6), name="u"), oc.Input((4, 6, 6), name="x")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u) - cp.sum(cp.multiply(oc.conv2d(x, K, padding=1), u))))
    layer = oc.compile(problem).to(dtype)
    (raw,) = layer.parameters()
    with torch.no_grad():
        raw.mul_(1e4)
    norm = supremum(layer.weights.value("K").detach().double())
    assert 0.85 * 0.95 <= norm < 0.95
