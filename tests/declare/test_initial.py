"""Orthogonal starts: singular values, reproducible draws, refusals; kernels against the dense matrix of their map."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.errors import InputError


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (2, 6)])
def test_all_singular_values_are_the_gain(shape: tuple[int, int]) -> None:
    weight = oc.Weight(shape, name="W", norm=0.95, init=oc.orthogonal(0.9, seed=0))
    np.testing.assert_allclose(np.linalg.svd(weight.value)[1], 0.9, rtol=1e-7)


def test_a_kernel_is_an_isometry_of_images() -> None:
    kernel = oc.orthogonal(0.8, seed=1)((3, 3, 3, 4))
    x = cp.Variable((3, 5, 6))
    matrix = oc.conv2d_matrix(cp.Constant(kernel), (3, 5, 6), padding=(1, 1))
    full = matrix.value.toarray() if hasattr(matrix.value, "toarray") else np.asarray(matrix.value)
    assert full.shape[1] == x.size
    inner = np.linalg.svd(full)[1]
    assert inner.max() == pytest.approx(0.8)
    assert (inner > 0.79).sum() >= 3 * 5 * 5


def test_draws_follow_seed_and_generator() -> None:
    a, b = (oc.orthogonal(seed=3)((4, 4)) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    generator = torch.Generator().manual_seed(3)
    c, d = (oc.orthogonal(generator=generator)((4, 4)) for _ in range(2))
    assert not np.allclose(c, d)
    means = np.mean([oc.orthogonal(1.0, seed=s)((2, 2)) for s in range(400)], axis=0)
    assert np.abs(means).max() < 0.15  # the signs are random, too


@pytest.mark.parametrize("gain", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_gains_are_refused(gain: float) -> None:
    with pytest.raises(InputError, match="gain"):
        oc.orthogonal(gain)


def test_bad_uses_are_refused() -> None:
    with pytest.raises(InputError, match="both seed and generator"):
        oc.orthogonal(seed=0, generator=torch.Generator())
    with pytest.raises(InputError, match="two axes"):
        oc.Weight(3, name="b", init=oc.orthogonal())
