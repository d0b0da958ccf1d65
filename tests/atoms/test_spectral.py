"""Spectral proxes where eigenvalues or singular values coincide, vanish or are not finite."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from opteq_cvx.atoms import atom
from opteq_cvx.atoms.spectral import OfEigenvalues, OfSingularValues
from opteq_cvx.errors import OrderError

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


# --- second derivatives, against differences of first ones ----------------------------------------------------

SMOOTH = {
    "neg_log_det": lambda v, t: atom("neg_log_det")().prox(v, t, {}),
    "tr_inv": lambda v, t: atom("tr_inv")().prox(v, t, {}),
    "psd": lambda v, t: atom("psd")().prox(v, t, {}),
    "lambda_max": lambda v, t: atom("lambda_max")().prox(v, t, {}),
    "not separable": lambda v, t: OfEigenvalues(lambda x, t: x.exp() * t / (1.0 + x.exp().sum(-1, True)))(v, t[..., 0]),
}
SMOOTH_LENGTHS = {
    "norm_nuc": lambda v, t: atom("norm_nuc")().prox(v, t, {}),
    "sigma_max": lambda v, t: atom("sigma_max")().prox(v, t, {}),
    "not separable": lambda v, t: OfSingularValues(lambda x, t: t * x.sinh() / (1.0 + x.cosh().sum(-1, True)))(
        v, t[..., 0]
    ),
}
TIED = (*SPECTRA, [1.5] * 3 + [-1.0], [0.2, 1.0, 2.0, 3.0], [2.0, 2.0 + 1e-7, 2.0 - 3e-8, 0.5])
TIED_LENGTHS = (*LENGTHS, [2.0] * 3 + [0.4], [2.0, 2.0 + 1e-7, 2.0 - 3e-8, 0.4], [3.0, 2.0, 1.1, 0.4], [1e-9] * 4)
TWICE = 2e-6
"""Central differences with step 1e-4 of first derivatives: 1e-8; quotients of quotients at gaps of 1e-7: 1e-6."""


def _twice_agrees(prox: Callable[[Tensor, Tensor], Tensor], v: Tensor) -> None:
    g, h, step = torch.randn_like(v), torch.randn_like(v), 0.7 * torch.ones_like(STEP)

    def first(v: Tensor, step: Tensor, graph: bool = False) -> tuple[Tensor, ...]:
        v, step = v if graph else v.clone().requires_grad_(), step if graph else step.clone().requires_grad_()
        return torch.autograd.grad((prox(v, step) * g).sum(), (v, step), create_graph=graph, materialize_grads=True)

    def difference(dv: Tensor, dt: Tensor) -> tuple[Tensor, ...]:
        near, far = first(v + 1e-4 * dv, step + 1e-4 * dt), first(v - 1e-4 * dv, step - 1e-4 * dt)
        return tuple((a - b) / 2e-4 for a, b in zip(near, far, strict=True))

    by_v, by_t = difference(h, torch.zeros_like(step)), difference(torch.zeros_like(v), torch.ones_like(step))
    at = v.clone().requires_grad_(), step.clone().requires_grad_()
    slope, rise = first(*at, graph=True)
    once = first(v, step)
    assert torch.allclose(slope, once[0], rtol=1e-9, atol=1e-9)
    assert torch.allclose(rise, once[1], rtol=1e-9, atol=1e-9)
    back_v, back_t = torch.autograd.grad((slope * h).sum(), at, retain_graph=True, materialize_grads=True)
    along = torch.autograd.grad(rise.sum() + 0.0 * slope.sum(), at, materialize_grads=True)
    for ours, theirs in ((back_v, by_v[0]), (back_t, (by_t[0] * h).sum()), (along[0], by_t[0]), (along[1], by_t[1])):
        scale = 1.0 + float(theirs.abs().max())
        if ours.shape == v.shape:
            k = torch.randn_like(v)
            assert abs(float(((ours - theirs) * k).sum())) <= TWICE * scale * float(k.abs().sum()), (ours, theirs)
        else:
            assert abs(float(ours - theirs)) <= TWICE * scale, (ours, theirs)


@pytest.mark.parametrize("values", TIED)
@pytest.mark.parametrize("name", SMOOTH)
def test_second_derivative_at_equal_eigenvalues(name: str, values: list[float]) -> None:
    _twice_agrees(SMOOTH[name], _symmetric(values))


@pytest.mark.parametrize("values", TIED_LENGTHS)
@pytest.mark.parametrize("name", SMOOTH_LENGTHS)
@pytest.mark.parametrize("shape", ["square", "tall", "wide"])
def test_second_derivative_at_equal_singular_values(name: str, values: list[float], shape: str) -> None:
    tall = _rectangular(values)
    v = {"tall": tall, "wide": tall.mT.contiguous(), "square": _symmetric(values)}[shape]
    _twice_agrees(SMOOTH_LENGTHS[name], v)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (3, 3)], ids=str)
@pytest.mark.parametrize("name", [*SMOOTH, *SMOOTH_LENGTHS])
def test_second_derivatives_of_a_batch_are_those_of_each_matrix(name: str, shape: tuple[int, int]) -> None:
    """Two batch axes, so that no axis counted from the left is the one counted from the right."""
    if name in SMOOTH and shape != (3, 3):
        shape = (4, 4)
    prox = SMOOTH_LENGTHS.get(name) or SMOOTH[name]
    generator = torch.Generator().manual_seed(0)
    v, g, h = torch.randn((3, 2, 3, *shape), dtype=torch.float64, generator=generator).unbind()
    v = v + v.mT if name in SMOOTH else v

    def second(v: Tensor, g: Tensor, h: Tensor) -> Tensor:
        v, step = v.clone().requires_grad_(), STEP.expand(*v.shape[:-2], 1, 1)
        (once,) = torch.autograd.grad((prox(v, step) * g).sum(), v, create_graph=True)
        return torch.autograd.grad((once * h).sum(), v)[0]

    alone = [second(*(t[i, j] for t in (v, g, h))) for i in range(2) for j in range(3)]
    torch.testing.assert_close(second(v, g, h), torch.stack(alone).reshape(v.shape), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["neg_log_det", "tr_inv", "norm_nuc"])
def test_gradgradcheck_at_a_multiple_of_the_identity(name: str) -> None:
    v = (2.0 * torch.eye(3, dtype=torch.float64)).expand(2, 3, 3).clone().requires_grad_()
    step = torch.full((2, 1, 1), 0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda v, t: atom(name)().prox(v, t, {}), (v, step), atol=1e-6)


@pytest.mark.parametrize("name", ["neg_log_det", "norm_nuc"])
def test_second_derivatives_under_transforms_agree(name: str) -> None:
    v = torch.stack([2.0 * torch.eye(3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)])

    def loss(v: Tensor) -> Tensor:
        return (atom(name)().prox(v, STEP, {}) ** 3).sum()

    twice = torch.func.vmap(torch.func.jacfwd(torch.func.jacrev(loss)))(v)
    other = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(loss)))(v)
    plain = torch.stack([torch.autograd.functional.hessian(loss, one) for one in v])
    assert torch.allclose(twice, other, rtol=1e-9, atol=1e-9)
    assert torch.allclose(plain, other, rtol=1e-9, atol=1e-9)


def test_third_derivatives_are_right_away_from_ties_and_refused_at_them() -> None:
    def thrice(v: Tensor) -> Tensor:
        h = torch.linspace(-1.0, 1.0, v.numel(), dtype=torch.float64).reshape(v.shape)
        g = (SMOOTH["neg_log_det" if v.shape[0] == v.shape[1] else "psd"](v, STEP) ** 2).sum()
        for _ in range(3):
            (slope,) = torch.autograd.grad(g, v, create_graph=True)
            g = (slope * h).sum()
        return g

    def twice(v: Tensor) -> Tensor:
        h = torch.linspace(-1.0, 1.0, v.numel(), dtype=torch.float64).reshape(v.shape)
        v = v.clone().requires_grad_()
        g = (SMOOTH["neg_log_det"](v, STEP) ** 2).sum()
        for _ in range(2):
            (slope,) = torch.autograd.grad(g, v, create_graph=True)
            g = (slope * h).sum()
        return g.detach()

    v = _symmetric([0.3, 1.0, 2.0, 3.0])
    h = torch.linspace(-1.0, 1.0, 16, dtype=torch.float64).reshape(4, 4)
    expected = (twice(v + 1e-5 * h) - twice(v - 1e-5 * h)) / 2e-5
    assert torch.allclose(thrice(v.requires_grad_()), expected, rtol=1e-6, atol=1e-7)
    with pytest.raises(OrderError, match="coincide"):
        thrice(torch.eye(4, dtype=torch.float64).requires_grad_())


def test_projection_on_the_psd_cone_is_moreaus() -> None:
    v = torch.randn(6, 5, 5, dtype=torch.float64)
    v = v + v.mT
    f = atom("psd")()
    plus, minus = f.prox(v, STEP, {}), -f.prox(-v, STEP, {})
    assert torch.allclose(plus + minus, v, rtol=0, atol=1e-13)
    assert float((plus @ minus).abs().max()) <= 1e-12
    assert float(torch.linalg.eigvalsh(plus).min()) >= -1e-13


def test_the_prox_of_the_von_neumann_entropy_meets_its_optimality_condition(generator: torch.Generator) -> None:
    """X + t(ln X + I) = V."""
    v = 2.0 * torch.randn((20, 4, 4), dtype=torch.float64, generator=generator)
    v, t = (v + v.mT) / 2, torch.tensor([[[0.7]]], dtype=torch.float64)
    x = atom("neg_von_neumann_entr").from_static({}).prox(v, t, {})
    values, vectors = torch.linalg.eigh(x)
    logarithm = (vectors * values.log().unsqueeze(-2)) @ vectors.mT
    back = x + 0.7 * (logarithm + torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(back, v, rtol=1e-10, atol=1e-10)
