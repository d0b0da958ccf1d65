"""Convolutions: the operator against its matrix and SciPy, adjoints, kernels per sample, derivatives, norm bounds."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d
from torch import Tensor

from opteq_cvx.ir import meaning
from opteq_cvx.ir.linmap import Conv2d
from opteq_cvx.ir.param import Leaf, ParamExpr, Stage
from opteq_cvx.maps.conv_norm import conv_norm
from opteq_cvx.maps.dense import dense
from opteq_cvx.maps.operator import bind
from opteq_cvx.verify.linear import conv_matrix

STRIDES, PADDINGS, GROUPS = ((1, 1), (2, 2), (1, 3)), ((0, 0), (1, 1), (2, 0)), (1, 2)
TAPS, IMAGES = ((1, 1), (3, 3), (2, 3)), ((4, 5, 6), (4, 7, 3))
TABLE = [
    (image, taps, stride, padding, groups)
    for image, taps, stride, padding, groups in itertools.product(IMAGES, TAPS, STRIDES, PADDINGS, GROUPS)
]
RNG = np.random.default_rng(0)
F64 = torch.float64


def made(image, taps, stride, padding, groups) -> tuple[Conv2d, np.ndarray]:
    """A convolution to six channels, and a kernel for it."""
    shape = (6, image[0] // groups, *taps)
    return Conv2d(Leaf("K", shape, Stage.WEIGHT), image, stride, padding, groups), RNG.standard_normal(shape)


def lookup(kernel: np.ndarray | Tensor):
    value = torch.as_tensor(kernel)
    value = value if value.ndim == 5 else value.unsqueeze(0)

    def find(expr: ParamExpr) -> Tensor:
        return value

    return find


def by_scipy(x: np.ndarray, kernel: np.ndarray, m: Conv2d) -> np.ndarray:
    """Channel by channel with SciPy's correlation."""
    (s, t), (p, q), g = m.stride, m.padding, m.groups
    padded = np.pad(x, ((0, 0), (p, p), (q, q)))
    inputs, outputs = x.shape[0] // g, kernel.shape[0] // g
    out = np.zeros(m.shape_out)
    for o in range(kernel.shape[0]):
        for c in range(inputs):
            out[o] += correlate2d(padded[o // outputs * inputs + c], kernel[o, c], mode="valid")[::s, ::t]
    return out


@pytest.mark.parametrize("case", TABLE, ids=str)
def test_every_evaluation_is_scipys_correlation(case) -> None:
    m, kernel = made(*case)
    x = RNG.standard_normal(m.shape_in)
    truth = by_scipy(x, kernel, m)
    assert truth.shape == m.shape_out
    np.testing.assert_allclose(meaning.apply(m, x, lambda _: kernel), truth, atol=1e-12)
    np.testing.assert_allclose(conv_matrix(m, kernel) @ x.reshape(-1), truth.reshape(-1), atol=1e-12)
    operator = bind(m, lookup(kernel))
    np.testing.assert_allclose(operator.apply(torch.as_tensor(x)[None])[0].numpy(), truth, atol=1e-12)


@pytest.mark.parametrize("case", TABLE, ids=str)
def test_adjoints_are_exact(case) -> None:
    m, kernel = made(*case)
    x, y = RNG.standard_normal(m.shape_in), RNG.standard_normal(m.shape_out)
    operator = bind(m, lookup(kernel))
    back = operator.adjoint(torch.as_tensor(y)[None])[0].numpy()
    forward = operator.apply(torch.as_tensor(x)[None])[0].numpy()
    assert back.shape == m.shape_in
    assert np.vdot(forward, y) == pytest.approx(np.vdot(x, back), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(meaning.adjoint(m, y, lambda _: kernel), back, atol=1e-12)


@pytest.mark.parametrize("groups", GROUPS)
def test_kernels_per_sample_and_dense_matrices(groups: int) -> None:
    m, _ = made((4, 5, 6), (3, 2), (2, 1), (1, 1), groups)
    kernels = RNG.standard_normal((3, *m.kernel.shape))
    x = RNG.standard_normal((3, *m.shape_in))
    many = bind(m, lookup(kernels))
    single = [bind(m, lookup(k)) for k in kernels]
    whole = many.apply(torch.as_tensor(x))
    for i, one in enumerate(single):
        torch.testing.assert_close(whole[i], one.apply(torch.as_tensor(x[i])[None])[0])
    torch.testing.assert_close(
        many.adjoint(whole), torch.cat([one.adjoint(whole[i : i + 1]) for i, one in enumerate(single)])
    )
    matrices = dense(m, lookup(kernels), like=torch.empty(0, dtype=F64)).numpy()
    for k, matrix in zip(kernels, matrices, strict=True):
        np.testing.assert_allclose(matrix, conv_matrix(m, k).toarray(), atol=1e-12)


@pytest.mark.parametrize("stride", STRIDES)
def test_derivatives_in_kernel_and_image(stride: tuple[int, int]) -> None:
    m, kernel = made((2, 4, 5), (2, 3), stride, (1, 1), 1)
    point = (torch.as_tensor(kernel)[None].requires_grad_(), torch.randn(2, *m.shape_in, dtype=F64, requires_grad=True))

    def both(k: Tensor, x: Tensor) -> Tensor:
        operator = bind(m, lookup(k))
        return operator.adjoint(operator.apply(x).sin())

    assert torch.autograd.gradcheck(both, point)
    assert torch.autograd.gradgradcheck(both, point)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_norm_bounds_are_never_below_a_dense_svd(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from((1, 2)))
    taps = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    image = (2 * groups, data.draw(st.integers(4, 8)), data.draw(st.integers(4, 8)))
    m = Conv2d(Leaf("K", (2 * groups, 2, *taps), Stage.WEIGHT), image, stride, padding, groups)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    kernel = rng.standard_normal(m.kernel.shape) + data.draw(st.sampled_from((0.0, 1.0)))
    truth = np.linalg.norm(conv_matrix(m, kernel).toarray(), 2)
    bound = float(conv_norm(torch.as_tensor(kernel)[None], stride, groups))
    assert bound >= truth * (1 - 1e-12)


def test_the_bound_is_near_the_norm_on_large_images() -> None:
    m = Conv2d(Leaf("K", (2, 2, 3, 3), Stage.WEIGHT), (2, 20, 20), (1, 1), (1, 1))
    kernel = RNG.standard_normal(m.kernel.shape)
    truth = np.linalg.norm(conv_matrix(m, kernel).toarray(), 2)
    assert float(conv_norm(torch.as_tensor(kernel)[None])) <= 1.12 * truth


def test_the_images_own_grid_is_no_bound_for_zero_padding() -> None:
    """Regression: max |K̂| over the image's own frequencies is exact for circular padding, and too small here."""
    kernel = np.array([-0.96, 0.51, -0.99]).reshape(1, 1, 1, 3)
    m = Conv2d(Leaf("K", kernel.shape, Stage.WEIGHT), (1, 1, 4), (1, 1), (0, 1))
    truth = np.linalg.norm(conv_matrix(m, kernel).toarray(), 2)
    circular = np.abs(np.fft.fft(kernel.reshape(-1), 4)).max()
    for width in (3, 5, 7):
        own = Conv2d(m.kernel, (1, 1, width), (1, 1), (0, 1))
        exact = np.linalg.norm(conv_matrix(own, kernel).toarray(), 2)
        circular = np.abs(np.fft.fft(np.pad(kernel.reshape(-1), (0, width - 3)))).max()
        if circular < exact:
            break
    assert circular < exact
    assert float(conv_norm(torch.as_tensor(kernel)[None])) >= max(exact, truth)


def test_a_kernel_that_is_not_finite_has_no_bound() -> None:
    kernel = torch.ones(2, 1, 1, 3, 3, dtype=F64)
    kernel[1, 0, 0, 1, 1] = torch.nan
    assert conv_norm(kernel).isfinite().tolist() == [True, False]
