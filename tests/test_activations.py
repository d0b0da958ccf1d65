"""σ = prox_f, its primitive and conjugate, by scalar minimization and finite differences that share no formula."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import spence
from torch import Tensor

from opteq_cvx.activations import ACTIVATIONS, ALIASES, REFUSED, Activation, table
from opteq_cvx.dilogarithm import dilogarithm
from opteq_cvx.errors import CompileError

ROWS = [
    *((name, {}) for name in ACTIVATIONS if not table(name).vector),
    ("linear", {"slope": 0.25}),
    ("softplus", {"beta": 3.0}),
    ("arctan", {"bound": 1.0}),
    ("hardtanh", {"lower": -0.5, "upper": 2.0}),
    ("leaky_relu", {"slope": 0.3}),
    ("soft_threshold", {"threshold": 0.4}),
    ("squareplus", {"mu": 0.3}),
    ("elu", {"alpha": 0.4}),
    ("celu", {"alpha": 0.4}),
    ("celu", {"alpha": 2.5}),
]
GRID = torch.linspace(-4.3, 4.3, 41, dtype=torch.float64)
MINIMIZER = 3e-7  # what a minimization of values can tell of the minimizer, here by Brent's method in float64
FENCHEL = 1e-9

rows = pytest.mark.parametrize(("name", "options"), ROWS, ids=lambda r: r if isinstance(r, str) else str(r))


def at(function: object, x: float) -> float:
    return float(function(torch.tensor(x, dtype=torch.float64)))  # type: ignore[operator]


def ends(row: Activation) -> tuple[float, float]:
    return max(row.lower, -30.0), min(row.upper, 30.0)


@rows
def test_sigma_is_the_prox_of_f(name: str, options: dict[str, float]) -> None:
    row = table(name, **options)
    for a in GRID.tolist():
        found = minimize_scalar(
            lambda y, a=a: min(at(row.f, y), 1e300) + 0.5 * (y - a) ** 2,
            bounds=ends(row),
            method="bounded",
            options={"xatol": 1e-12},
        )
        assert abs(found.x - at(row.sigma, a)) < MINIMIZER * 10


@rows
def test_fenchel_equality_with_a_conjugate_found_by_maximization(name: str, options: dict[str, float]) -> None:
    row = table(name, **options)
    for a in GRID.tolist():
        s = at(row.sigma, a)
        y = a - s
        best = minimize_scalar(
            lambda x, y=y: min(at(row.f, x), 1e300) - x * y,
            bounds=ends(row),
            method="bounded",
            options={"xatol": 1e-12},
        )
        sup = -min(best.fun, *(at(row.f, e) - e * y for e in ends(row)))
        primitive = at(row.primitive, a)
        assert abs(sup - at(row.conjugate_at, a)) < FENCHEL * (1 + abs(sup))  # (3.2)
        assert abs(primitive - (a * s - at(row.f, s) - 0.5 * s * s)) < FENCHEL  # (3.1)


@rows
def test_the_primitive_integrates_sigma_and_the_slope_is_its_derivative(name: str, options: dict[str, float]) -> None:
    row = table(name, **options)
    for a, b in ((-3.1, -0.2), (-0.7, 0.9), (0.3, 3.7)):
        kinks = [k for k in (-3.0, -1.0, -0.5, -0.4, 0.0, 0.4, 1.0, 2.0, 3.0) if a < k < b]
        area, _ = quad(lambda x: at(row.sigma, x), a, b, points=kinks or None, epsabs=1e-12)
        assert abs(at(row.primitive, b) - at(row.primitive, a) - area) < 1e-9
    x = GRID.clone().requires_grad_()
    (slope,) = torch.autograd.grad(row.sigma(x).sum(), x)
    torch.testing.assert_close(row.slope(GRID), slope, rtol=1e-10, atol=1e-12)
    assert row.slope(GRID).max() <= row.lipschitz + 1e-12
    assert row.slope(GRID).min() >= 0
    fine = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    assert row.slope(fine).max() >= 0.98 * row.lipschitz


@rows
def test_f_is_convex_and_infinite_outside_its_domain(name: str, options: dict[str, float]) -> None:
    row = table(name, **options)
    low, high = (max(row.lower, -6.0), min(row.upper, 6.0))
    y = torch.linspace(low + 1e-6, high - 1e-6, 2001, dtype=torch.float64)
    f = row.f(y)
    assert f.isfinite().all()
    assert (f[2:] - 2 * f[1:-1] + f[:-2]).min() > -1e-11
    for outside in (row.lower - 0.1, row.upper + 0.1):
        if math.isfinite(outside):
            assert at(row.f, outside) == math.inf


@rows
def test_large_arguments_and_both_precisions(name: str, options: dict[str, float]) -> None:
    row = table(name, **options)
    for dtype in (torch.float32, torch.float64):
        a = torch.tensor([-1e8, -1e3, -1e-12, 0.0, 1e-12, 1e3, 1e8], dtype=dtype, requires_grad=True)
        s = row.sigma(a)
        (slope,) = torch.autograd.grad(s.sum(), a)
        assert s.dtype == row.f(s).dtype == row.slope(a).dtype == row.primitive(a).dtype == dtype
        assert s.isfinite().all()
        assert slope.isfinite().all()
        assert row.slope(a).isfinite().all()


def test_torchs_own_activations_agree() -> None:
    own: dict[str, Tensor] = {
        "relu": torch.relu(GRID),
        "hardtanh": torch.nn.functional.hardtanh(GRID),
        "relu6": torch.nn.functional.relu6(GRID),
        "leaky_relu": torch.nn.functional.leaky_relu(GRID, 0.01),
        "soft_threshold": torch.nn.functional.softshrink(GRID, 1.0),
        "hard_sigmoid": torch.nn.functional.hardsigmoid(GRID),
        "tanh": torch.tanh(GRID),
        "sigmoid": torch.sigmoid(GRID),
        "softplus": torch.nn.functional.softplus(GRID),
        "log_sigmoid": torch.nn.functional.logsigmoid(GRID),
        "softsign": torch.nn.functional.softsign(GRID),
        "elu": torch.nn.functional.elu(GRID),
        "celu": torch.nn.functional.celu(GRID),
        "tanhshrink": torch.nn.functional.tanhshrink(GRID),
        "identity": GRID,
    }
    torch.testing.assert_close(
        table("softplus", beta=3.0).sigma(GRID), torch.nn.functional.softplus(GRID, 3.0), rtol=1e-8, atol=1e-8
    )
    for name, expected in own.items():
        torch.testing.assert_close(table(name).sigma(GRID), expected, rtol=1e-8, atol=1e-8)


def test_softmax_is_the_prox_of_its_f(generator: torch.Generator) -> None:
    row = table("softmax")
    a = 2 * torch.randn((50, 4), dtype=torch.float64, generator=generator)
    s = row.sigma(a)
    value = row.f(s) + 0.5 * ((s - a) ** 2).sum(-1, keepdim=True)
    for scale in (1e-4, 1e-2, 0.3):
        other = torch.softmax(torch.log(s) + scale * torch.randn(a.shape, dtype=a.dtype, generator=generator), -1)
        assert (row.f(other) + 0.5 * ((other - a) ** 2).sum(-1, keepdim=True) >= value - 1e-14).all()
    fenchel = (a * s).sum(-1, keepdim=True) - row.f(s) - 0.5 * (s * s).sum(-1, keepdim=True)
    torch.testing.assert_close(row.primitive(a), fenchel, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("threshold", [0.4, 2.0])
def test_group_shrink_is_the_prox_of_the_norm(threshold: float, generator: torch.Generator) -> None:
    """Optimality, by f's subgradients: a − x = λx/‖x‖, or ‖a‖ ≤ λ where x = 0; σ̃' = σ; the diagonal of the Jacobian."""
    row = table("group_shrink", threshold=threshold)
    a = torch.randn((50, 4), dtype=torch.float64, generator=generator, requires_grad=True)
    x = row.sigma(a)
    size, rest = x.norm(dim=-1), (a - x).norm(dim=-1)
    assert bool((size > 0).any())
    torch.testing.assert_close((x * (a - x)).sum(-1), threshold * size, rtol=1e-12, atol=1e-12)
    assert (rest <= threshold * (1 + 1e-14)).all()
    (gradient,) = torch.autograd.grad(row.primitive(a).sum(), a)
    torch.testing.assert_close(gradient, x, rtol=1e-12, atol=1e-12)
    at = a.detach()
    torch.testing.assert_close(row.slope(at), torch.func.vmap(torch.func.jacrev(row.sigma))(at).diagonal(0, -2, -1))


def test_the_dilogarithm_is_scipys() -> None:
    z = torch.cat([-torch.logspace(-8, 8, 200, dtype=torch.float64), torch.linspace(-1, 1, 401, dtype=torch.float64)])
    torch.testing.assert_close(dilogarithm(z), torch.as_tensor(spence(1 - np.asarray(z))), rtol=5e-15, atol=5e-15)


def test_sparsemax_is_the_projection_on_the_simplex(generator: torch.Generator) -> None:
    """Optimality: x = max(a − τ, 0) of sum 1 for one number τ; and a − x is normal to the simplex there."""
    row = table("sparsemax")
    a = 2 * torch.randn((50, 4), dtype=torch.float64, generator=generator, requires_grad=True)
    s = row.sigma(a)
    torch.testing.assert_close(s.sum(-1), torch.ones(50, dtype=torch.float64), rtol=0, atol=1e-14)
    assert (s >= 0).all()
    corners = torch.eye(4, dtype=torch.float64)
    assert (((a - s) @ corners) <= ((a - s) * s).sum(-1, keepdim=True) + 1e-13).all()
    (gradient,) = torch.autograd.grad(row.primitive(a).sum(), a)
    torch.testing.assert_close(gradient, s, rtol=1e-12, atol=1e-12)  # σ̃' = σ
    x = a.detach()
    torch.testing.assert_close(row.slope(x), torch.func.vmap(torch.func.jacrev(row.sigma))(x).diagonal(0, -2, -1))


@pytest.mark.parametrize("name", ALIASES)
def test_other_libraries_names(name: str) -> None:
    if ALIASES[name] in REFUSED:
        with pytest.raises(CompileError, match=ALIASES[name]):
            table(name)
    else:
        assert table(name).name == ALIASES[name]


def test_every_refusal_is_true() -> None:
    """Refused maps are no prox: not monotone, not nonexpansive, not continuous or not a gradient, at some point."""
    f, a = torch.nn.functional, torch.linspace(-6, 6, 2401, dtype=torch.float64)
    maps = {"gelu": f.gelu, "silu": f.silu, "mish": f.mish, "hardswish": f.hardswish, "selu": f.selu}
    maps |= {"hardshrink": f.hardshrink, "threshold": lambda a: f.threshold(a, 1.0, 0.0), "sign": torch.sign}
    maps |= {"exp": torch.exp}
    assert set(maps) | {"softmin", "log_softmax", "layer_norm", "batch_norm", "rrelu", "glu", "maxout"} == set(REFUSED)
    for name, sigma in maps.items():
        rise = sigma(a).diff() / a.diff()
        assert rise.min() < -1e-3 or rise.max() > 1.001, name
    x = torch.randn(4, dtype=torch.float64)
    for name, g in {"log_softmax": f.log_softmax, "softmin": f.softmin}.items():
        jacobian = torch.autograd.functional.jacobian(lambda x, g=g: g(x, dim=-1), x)
        symmetric = torch.allclose(jacobian, jacobian.T)
        assert not symmetric or torch.linalg.eigvalsh(jacobian).min() < -1e-3, name
    normal = torch.autograd.functional.jacobian(lambda x: f.layer_norm(x, (4,)), 0.1 * x)
    assert not torch.allclose(normal, normal.T) or torch.linalg.eigvalsh(normal).max() > 1.001


@pytest.mark.parametrize("name", [*REFUSED, "nothing"])
def test_what_is_no_prox_of_a_convex_function_is_refused(name: str) -> None:
    with pytest.raises(CompileError, match=name):
        table(name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("elu", {"alpha": 1.5}),
        ("celu", {"alpha": 0.0}),
        ("linear", {"slope": 0.0}),
        ("linear", {"slope": 1.5}),
        ("softplus", {"beta": -1.0}),
        ("arctan", {"bound": 0.0}),
        ("leaky_relu", {"slope": 1.0}),
        ("squareplus", {"mu": 0.0}),
        ("hardtanh", {"lower": 1.0, "upper": 0.0}),
        ("soft_threshold", {"threshold": -1.0}),
        ("tanh", {"alpha": 1.0}),
    ],
)
def test_options_outside_their_range_are_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(CompileError, match=name):
        table(name, **options)
