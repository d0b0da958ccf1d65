"""Certified bounds: never below the SVD's norm, as tight as they say, smooth where they say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opteq_cvx.weights import bounds

SIDES = st.integers(1, 7)
BOUNDS = {"exact": bounds.exact, "gram": bounds.gram, "frobenius": bounds.frobenius, "holder": bounds.holder}


def norm(W: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(np.linalg.svd(W.double().numpy(), compute_uv=False)[..., 0])


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@settings(max_examples=40, deadline=None)
@given(m=SIDES, n=SIDES, exponent=st.integers(-30, 30), rank=st.integers(0, 7), seed=st.integers(0, 999))
def test_bound_is_never_below_the_norm(
    name: str, dtype: torch.dtype, m: int, n: int, exponent: int, rank: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    low = rng.standard_normal((3, m, rank)) @ rng.standard_normal((3, rank, n))
    W = torch.as_tensor(low * 10.0**exponent).to(dtype)
    bound = BOUNDS[name](W)
    assert bound.shape == (3,)
    assert bool((bound.double() >= norm(W) * (1 - 1e-13)).all())


def test_gram_is_as_tight_as_documented() -> None:
    W = torch.eye(100, dtype=torch.float64)  # the worst case: all singular values equal
    assert 1.0 <= float(bounds.gram(W)) <= 100 ** (1 / 1024) * (1 + 1e-9)
    assert float(bounds.gram(W, steps=1)) == pytest.approx(100 ** (1 / 8), rel=1e-9)


def test_certified_is_the_least() -> None:
    W = torch.randn(2, 6, 4, dtype=torch.float64)
    every = torch.stack([f(W) for k, f in BOUNDS.items() if k != "exact"])
    assert torch.equal(bounds.certified(W), every.min(dim=0).values)


def test_gram_gradients_and_zero() -> None:
    W = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(bounds.gram, (W,))
    assert torch.autograd.gradgradcheck(bounds.gram, (W,))
    Z = torch.zeros(4, 3, requires_grad=True)
    (g,) = torch.autograd.grad(bounds.gram(Z), Z)
    assert float(bounds.gram(Z.detach())) == 0.0
    assert torch.equal(g, torch.zeros_like(g))


def test_power_iteration_would_not_be_a_certificate() -> None:
    W = torch.randn(9, 6, dtype=torch.float64)
    v = torch.randn(6, dtype=torch.float64)
    assert float((W @ (v / v.norm())).norm()) < float(norm(W)) <= float(bounds.certified(W))
