"""Spectral proxes where eigenvalues or singular values coincide, vanish or are not finite."""

import pytest
import torch
from torch import Tensor

from opteq_cvx.atoms import atom

# torch.func loads torch's table of forward derivatives, which still calls torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

STEP = torch.full((1, 1), 0.7, dtype=torch.float64)
H = 1e-6
CLOSE = 2e-8
"""Central differences with step 1e-6 are accurate to about 1e-9."""


def _symmetric(values: list[float]) -> Tensor:
    q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    return q @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ q.mT


def _rectangular(values: list[float]) -> Tensor:
    p = torch.linalg.qr(torch.randn(5, 4, dtype=torch.float64)).Q
    return p @ _symmetric(values)


SPECTRA = ([2.0, 2.0, -1.0, -1.0], [2.0, 2.0 + 1e-9, -1.0, -1.0 + 1e-12], [2.0] * 4, [-3.0] * 4, [3.0, 0.1, 0.1, 0.1])
LENGTHS = ([2.0, 2.0, 0.3, 0.3], [2.0, 2.0 + 1e-9, 0.3, 0.1], [2.0, 2.0, 0.0, 0.0], [0.0] * 4, [2.0] * 4)


def _derivative_agrees(name: str, v: Tensor) -> None:
    f = atom(name)()
    h, g = torch.randn_like(v), torch.randn_like(v)
    difference = (f.prox(v + H * h, STEP, {}) - f.prox(v - H * h, STEP, {})) / (2 * H)
    _, forward = torch.func.jvp(lambda v: f.prox(v, STEP, {}), (v,), (h,))
    assert float((forward - difference).abs().max()) <= CLOSE
    point = v.clone().requires_grad_()
    (reverse,) = torch.autograd.grad((f.prox(point, STEP, {}) * g).sum(), point)
    assert torch.allclose((reverse * h).sum(), (forward * g).sum(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("values", SPECTRA)
@pytest.mark.parametrize("name", ["psd", "lambda_max", "lambda_sum_largest", "neg_log_det", "tr_inv"])
def test_derivative_at_equal_eigenvalues(name: str, values: list[float]) -> None:
    _derivative_agrees(name, _symmetric(values))


@pytest.mark.parametrize("values", LENGTHS)
@pytest.mark.parametrize("name", ["norm_nuc", "sigma_max"])
@pytest.mark.parametrize("wide", [False, True])
def test_derivative_at_equal_singular_values(name: str, values: list[float], wide: bool) -> None:
    v = _rectangular(values)
    _derivative_agrees(name, v.mT.contiguous() if wide else v)


@pytest.mark.parametrize("name", ["psd", "norm_nuc", "neg_log_det"])
def test_one_bad_matrix_does_not_spoil_the_batch(name: str) -> None:
    f = atom(name)()
    v = torch.randn(3, 4, 4, dtype=torch.float64)
    bad = v.clone()
    bad[1, 0, 2] = torch.nan
    x, expected = f.prox(bad, STEP, {}), f.prox(v, STEP, {})
    assert torch.equal(x[[0, 2]], expected[[0, 2]])
    assert x[1].isnan().all()


def test_second_derivative_at_a_tie_is_nan_never_a_wrong_number() -> None:
    v = _symmetric([2.0, 2.0, -1.0, -1.0]).requires_grad_()
    (g,) = torch.autograd.grad((atom("psd")().prox(v, STEP, {}) ** 3).sum(), v, create_graph=True)
    assert g.isfinite().all()
    (twice,) = torch.autograd.grad(g.sum(), v)
    assert twice.isnan().any()


def test_projection_on_the_psd_cone_is_moreaus() -> None:
    v = torch.randn(6, 5, 5, dtype=torch.float64)
    v = v + v.mT
    f = atom("psd")()
    plus, minus = f.prox(v, STEP, {}), -f.prox(-v, STEP, {})
    assert torch.allclose(plus + minus, v, rtol=0, atol=1e-13)
    assert float((plus @ minus).abs().max()) <= 1e-12
    assert float(torch.linalg.eigvalsh(plus).min()) >= -1e-13
