"""Convolutions as CVXPY atoms: values, DCP, exact solves, hoisting, and clear errors."""

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F

import opteq_cvx as oc

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 5, 4))
KERNEL = RNG.standard_normal((3, 2, 3, 2))


def torchs(x: np.ndarray, k: np.ndarray, **options: object) -> np.ndarray:
    return np.asarray(F.conv2d(torch.as_tensor(x)[None], torch.as_tensor(k), **options)[0])  # type: ignore[arg-type]


def test_values_are_torchs() -> None:
    np.testing.assert_allclose(
        oc.conv2d(IMAGE, KERNEL, stride=(2, 1), padding=1).value, torchs(IMAGE, KERNEL, stride=(2, 1), padding=1)
    )
    np.testing.assert_allclose(
        oc.conv2d(IMAGE, KERNEL[:, :, :, :1], padding="same").value, torchs(IMAGE, KERNEL[:, :, :, :1], padding="same")
    )
    y = RNG.standard_normal((3, 3, 3))
    truth = F.conv_transpose2d(
        torch.as_tensor(y)[None], torch.as_tensor(KERNEL), stride=2, padding=1, output_padding=(0, 1)
    )[0]
    found = oc.conv_transpose2d(y, KERNEL, stride=2, padding=1, output_padding=(0, 1))
    np.testing.assert_allclose(found.value, truth.numpy())
    pooled = F.avg_pool2d(torch.as_tensor(IMAGE)[None], (2, 2))[0]
    np.testing.assert_allclose(oc.avg_pool2d(IMAGE, 2).value, pooled.numpy())
    d = oc.differences2d(IMAGE).value
    np.testing.assert_allclose(d[:2, :-1], np.diff(IMAGE, axis=1))
    np.testing.assert_allclose(d[2:, :, :-1], np.diff(IMAGE, axis=2))
    assert not d[:2, -1].any()
    assert not d[2:, :, -1].any()


def test_the_matrix_is_the_map() -> None:
    A = oc.conv2d_matrix(KERNEL, IMAGE.shape, 2, 1)
    np.testing.assert_allclose(
        A.value @ IMAGE.reshape(-1), oc.conv2d(IMAGE, KERNEL, stride=2, padding=1).value.reshape(-1)
    )


@pytest.mark.filterwarnings("ignore:The problem has an expression with dimension greater than 2:UserWarning")
def test_cvxpy_solves_with_the_atom() -> None:
    """Least squares through the convolution, by Clarabel and by NumPy's pseudoinverse of its matrix."""
    target = RNG.standard_normal((3, 3, 3))
    u = cp.Variable(IMAGE.shape)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(oc.conv2d(u, KERNEL) - target) + 0.1 * cp.sum_squares(u)))
    problem.solve(solver=cp.CLARABEL)
    A = oc.conv2d_matrix(KERNEL, IMAGE.shape).value
    truth = np.linalg.solve(A.T @ A + 0.1 * np.eye(40), A.T @ target.reshape(-1))
    np.testing.assert_allclose(u.value.reshape(-1), truth, atol=1e-6)


def test_dcp_and_signs() -> None:
    u, K = cp.Variable(IMAGE.shape, nonneg=True), cp.Parameter(KERNEL.shape, nonneg=True)
    e = oc.conv2d(u, K)
    assert e.is_affine()
    assert e.is_nonneg()
    assert cp.Problem(cp.Minimize(cp.sum(cp.exp(e)))).is_dcp()
    assert not cp.Problem(cp.Minimize(cp.sum(e))).is_dcp(dpp=True)


def test_monotonicity_follows_the_kernels_sign() -> None:
    u = cp.Variable(IMAGE.shape)
    positive, mixed = np.abs(KERNEL), KERNEL
    for f in (lambda x, k: oc.conv2d(x, k), lambda x, k: oc.conv_transpose2d(x, k.transpose(1, 0, 2, 3))):
        assert f(cp.square(u), positive).is_convex()
        assert f(cp.square(u), -positive).is_concave()
        assert not f(cp.square(u), -positive).is_convex()
        assert not f(cp.square(u), mixed).is_convex()
        assert not f(cp.square(u), mixed).is_concave()
        assert f(u, mixed).is_affine()


@pytest.mark.filterwarnings("ignore:The problem has an expression with dimension greater than 2:UserWarning")
def test_the_matrix_in_cvxpy() -> None:
    """A product with the matrix is DCP in the image, DPP only for a constant kernel, and Clarabel gets its numbers."""
    K = cp.Parameter(KERNEL.shape, name="K", value=KERNEL)
    u = cp.Variable(IMAGE.size)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(oc.conv2d_matrix(K, IMAGE.shape) @ u - 1) + cp.sum_squares(u)))
    assert problem.is_dcp()
    assert "conv2d_matrix(K, (2, 5, 4))" in str(problem)
    A = np.stack([torchs(e.reshape(IMAGE.shape), KERNEL).reshape(-1) for e in np.eye(IMAGE.size)], axis=1)
    np.testing.assert_allclose(oc.conv2d_matrix(K, IMAGE.shape).value, A, atol=1e-12)
    problem.solve(solver=cp.CLARABEL, ignore_dpp=True)
    expected = np.linalg.solve(A.T @ A + np.eye(IMAGE.size), A.T @ np.ones(A.shape[0]))
    np.testing.assert_allclose(u.value, expected, atol=1e-6)
    assert oc.conv2d_matrix(KERNEL, IMAGE.shape).is_constant()


def test_differences_of_a_single_row_or_column_are_zero() -> None:
    row = RNG.standard_normal((2, 1, 4))
    d = oc.differences2d(row).value
    assert not d[:2].any()
    np.testing.assert_allclose(d[2:, :, :-1], np.diff(row, axis=2))
    d = oc.differences2d(row.transpose(0, 2, 1)).value
    assert not d[2:].any()
    np.testing.assert_allclose(d[:2, :-1], np.diff(row.transpose(0, 2, 1), axis=1))


@pytest.mark.parametrize("transposed", [False, True])
def test_programs_with_the_atom_are_verified(transposed: bool) -> None:
    x = oc.Input((3, 3, 2) if transposed else (2, 5, 4), name="x")
    K = oc.Weight(KERNEL.shape, name="K", init=KERNEL)
    u = cp.Variable(x.shape, name="u")
    f = oc.conv_transpose2d if transposed else oc.conv2d
    loss = cp.sum_squares(f(u - x, K, stride=2, padding=1)) + 0.1 * cp.sum_squares(u) + 0.3 * cp.norm1(u)
    layer = oc.compile(cp.Problem(cp.Minimize(loss))).double()
    assert "matrix-free" in layer.plan.name
    report = oc.verify(layer, torch.randn(2, *x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert report.ok, str(report)


def test_a_kernel_per_sample() -> None:
    K, t = oc.Input(KERNEL.shape, name="K"), oc.Input((3, 3, 3), name="t")
    u = cp.Variable((2, 5, 4), name="u", nonneg=True)
    loss = cp.sum_squares(oc.conv2d(u, K) - t) + 0.1 * cp.sum_squares(u)
    layer = oc.compile(cp.Problem(cp.Minimize(loss)), [K, t]).double()
    g = torch.Generator().manual_seed(0)
    report = oc.verify(
        layer,
        torch.randn(2, *KERNEL.shape, dtype=torch.float64, generator=g),
        torch.randn(2, 3, 3, 3, dtype=torch.float64, generator=g),
    )
    assert report.ok, str(report)


def test_an_indefinite_quadratic_of_convolutions_is_refused_per_call() -> None:
    K = oc.Weight((2, 2, 3, 3), name="K", init=np.ones((2, 2, 3, 3)))
    x, u = oc.Input((2, 4, 4), name="x"), cp.Variable((2, 4, 4), name="u", nonneg=True)
    A = oc.conv2d_matrix(K, (2, 4, 4), padding="same")
    curved = cp.quad_form(cp.vec(u, order="C"), cp.psd_wrap(np.eye(32) - A @ A.T))
    layer = oc.compile(cp.Problem(cp.Minimize(0.5 * curved - cp.sum(cp.multiply(x, u))))).double()
    with pytest.warns(oc.SolveWarning, match="not_convex"):
        found = layer.solve(torch.ones(2, 2, 4, 4, dtype=torch.float64))
    assert found.status.failed.all()


def test_memory_is_that_of_the_variables() -> None:
    """10⁵ unknowns: P would take 80 GB."""
    side, channels = 160, 4
    n = channels * side * side
    x = oc.Input((1, side, side), name="x")
    K = oc.Weight((channels, channels, 3, 3), name="K", norm=0.5, seed=0)
    V = oc.Weight((channels, 1, 3, 3), name="V", seed=1)
    u = cp.Variable((channels, side, side), nonneg=True, name="u")
    A = oc.conv2d_matrix(K, u.shape, padding="same")
    P = cp.psd_wrap(sp.eye_array(n, format="csr") - A @ A.T)
    injection = oc.conv2d(x, V, padding="same")
    cost = 0.5 * cp.quad_form(cp.vec(u, order="C"), P) - cp.sum(cp.multiply(injection, u))
    layer = oc.compile(cp.Problem(cp.Minimize(cost)), [x], [u])
    image = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    (out,) = layer(image)
    out.square().mean().backward()
    assert out.shape == (2, channels, side, side)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in layer.parameters())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: oc.conv2d(np.ones((5, 5)), KERNEL), "(C, H, W)"),
        (lambda: oc.conv2d(IMAGE, np.ones((3, 3, 3, 3))), "channels"),
        (lambda: oc.conv2d(IMAGE, np.ones((3, 2, 9, 9))), "window"),
        (lambda: oc.conv2d(IMAGE, KERNEL, groups=2), "groups"),
        (lambda: oc.conv2d(IMAGE, KERNEL, stride=0), "stride"),
        (lambda: oc.conv2d(IMAGE, KERNEL, padding="same"), "odd taps"),
        (lambda: oc.conv2d(IMAGE, cp.Variable((3, 2, 3, 3))), "variables"),
        (lambda: oc.conv2d_matrix(KERNEL, (3, 5, 5)), "in_shape"),
        (lambda: oc.conv_transpose2d(IMAGE, KERNEL), "channels"),
        (lambda: oc.conv2d(IMAGE, KERNEL[0]), "a kernel of shape (2, 3, 2)"),
        (lambda: oc.conv_transpose2d(np.ones((3, 3, 3)), KERNEL, stride=2, output_padding=2), "less than the stride"),
        (lambda: oc.conv_transpose2d(np.ones((3, 1, 1)), KERNEL, padding=2), "at least one pixel"),
        (lambda: oc.avg_pool2d(IMAGE[0], 2), "an image of shape (5, 4)"),
        (lambda: oc.avg_pool2d(IMAGE, 0), "size"),
        (lambda: oc.differences2d(IMAGE[0]), "an image of shape (5, 4)"),
        (lambda: oc.conv2d_matrix(cp.Variable((3, 2, 3, 2)), IMAGE.shape), "use oc.conv2d(x, K)"),
    ],
)
def test_errors_say_what_is_wrong(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(oc.InputError, match=words.replace("(", r"\(").replace(")", r"\)")):
        call()
