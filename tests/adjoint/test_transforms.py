"""The adjoint contract: gradcheck, gradgradcheck, forward mode, vmap(grad), jacfwd, jacrev², vmap over weights.

Oracles: finite differences (gradcheck) for the first two, and for the others the Hessian that reverse mode twice gives,
itself checked by gradgradcheck.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, jacfwd, jacrev, jvp, vjp, vmap

from opteq_cvx.adjoint import fold
from opteq_cvx.adjoint.implicit import Implicit
from opteq_cvx.adjoint.problem import FixedPoint, by_iteration
from opteq_cvx.iterate.contract import Iterate, Stop
from opteq_cvx.iterate.plain import Plain
from opteq_cvx.splitting.contract import Prepared, Theta
from tests.adjoint.setting import function, parameters
from tests.adjoint.toys import Kind, Unit

D, B, NORM = 3, 2, 0.5  # small and quick to converge: every test solves hundreds of times
UNITS = [
    pytest.param(Unit(D, kind, symmetric=symmetric, prepares=prepares), id=f"{kind}-{symmetric}-{prepares}")
    for kind in ("relu", "tanh", "softmax")
    for symmetric, prepares in ((True, False), (False, False), (False, True))
]
Pair = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(params=[False, True], ids=["shared", "each"])
def each(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def loss_of(unit: Unit) -> Loss:
    f = function(unit)
    return lambda M, c: f(M, c).sin().sum()


def hessian(loss: Loss, theta: Pair) -> list[list[Tensor]]:
    """By reverse mode twice, in plain autograd."""
    blocks = torch.autograd.functional.hessian(loss, theta)
    return [list(row) for row in blocks]


def assert_blocks(found: tuple[Pair, Pair], wanted: list[list[Tensor]]) -> None:
    for i in range(2):
        for j in range(2):
            torch.testing.assert_close(found[i][j], wanted[i][j], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("unit", UNITS)
def test_gradcheck(unit: Unit, each: bool, generator: torch.Generator) -> None:
    M, c = (t.requires_grad_() for t in parameters(D, B, generator, norm=NORM, symmetric=unit.symmetric, each=each))
    assert gradcheck(function(unit), (M, c), check_forward_ad=True, fast_mode=each)


@pytest.mark.parametrize("unit", UNITS)
def test_gradgradcheck(unit: Unit, generator: torch.Generator) -> None:
    M, c = (t.requires_grad_() for t in parameters(D, 2, generator, norm=NORM, symmetric=unit.symmetric))
    full = unit == Unit(D, "tanh")  # every entry once; elsewhere along random directions
    assert gradgradcheck(function(unit), (M, c), check_fwd_over_rev=True, fast_mode=not full)


@pytest.mark.parametrize("unit", UNITS)
def test_first_order_transforms(unit: Unit, each: bool, generator: torch.Generator) -> None:
    M, c = parameters(D, B, generator, norm=NORM, symmetric=unit.symmetric, each=each)
    f = function(unit)
    wanted = torch.autograd.functional.jacobian(f, (M, c))
    for transform in (jacrev, jacfwd):
        for found, block in zip(transform(f, (0, 1))(M, c), wanted, strict=True):
            torch.testing.assert_close(found, block, atol=1e-10, rtol=1e-10)
    dM, dc = torch.randn_like(M), torch.randn_like(c)
    _, tangent = jvp(f, (M, c), (dM, dc))
    product = torch.tensordot(wanted[0], dM, 3) + torch.tensordot(wanted[1], dc, 2)
    torch.testing.assert_close(tangent, product, atol=1e-10, rtol=1e-10)
    with forward_ad.dual_level():
        dual = f(forward_ad.make_dual(M, dM), forward_ad.make_dual(c, dc))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, product, atol=1e-10, rtol=1e-10)
    cotangents = torch.randn(5, B, D, dtype=torch.float64, generator=generator)
    pulled = vmap(vjp(f, M, c)[1])(cotangents)
    torch.testing.assert_close(
        pulled[0], torch.einsum("kbi,bixyz->kxyz", cotangents, wanted[0]), atol=1e-10, rtol=1e-10
    )


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("outer", [jacrev, jacfwd])
@pytest.mark.parametrize("inner", [jacrev, jacfwd])
def test_second_order_transforms(
    unit: Unit, outer: Callable[..., Loss], inner: Callable[..., Loss], generator: torch.Generator
) -> None:
    theta = parameters(D, 2, generator, norm=NORM, symmetric=unit.symmetric)
    loss = loss_of(unit)
    found = outer(inner(loss, (0, 1)), (0, 1))(*theta)
    assert_blocks(found, hessian(loss, theta))


@pytest.mark.parametrize("unit", UNITS)
def test_third_order(unit: Unit, generator: torch.Generator) -> None:
    M, c = parameters(D, 1, generator, norm=NORM, symmetric=unit.symmetric)
    f = function(unit)
    loss = lambda x: f(M, x).pow(3).sum()  # noqa: E731
    found = jacfwd(jacrev(jacrev(loss)))(c)
    h = 1e-4
    direction = torch.randn_like(c)
    ahead, behind = (jacrev(jacrev(loss))(c + s * h * direction) for s in (1, -1))
    wanted = (ahead - behind) / (2 * h)
    torch.testing.assert_close(torch.tensordot(found, direction, 2), wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("unit", UNITS)
def test_tangents_through_a_plain_backward(unit: Unit, generator: torch.Generator) -> None:
    """Forward over reverse without create_graph: gradients are disabled in backward, tangents are not."""
    theta = parameters(D, 2, generator, norm=NORM, symmetric=unit.symmetric)
    loss = loss_of(unit)
    moves = tuple(torch.randn_like(t) for t in theta)
    _, wanted = torch.autograd.functional.hvp(loss, theta, moves)
    with forward_ad.dual_level():
        duals = tuple(forward_ad.make_dual(t.clone().requires_grad_(), m) for t, m in zip(theta, moves, strict=True))
        grads = torch.autograd.grad(loss(*duals), duals)
        for g, w in zip(grads, wanted, strict=True):
            torch.testing.assert_close(forward_ad.unpack_dual(g).tangent, w, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("unit", UNITS)
def test_vmap_grad_over_samples(unit: Unit, generator: torch.Generator) -> None:
    M, c = parameters(D, B, generator, norm=NORM, symmetric=unit.symmetric)
    f = function(unit)
    found = vmap(grad(lambda M, x: f(M, x[None]).sin().sum(), (0, 1)), (None, 0))(M, c)
    for i in range(B):
        m, x = M.clone().requires_grad_(), c[i : i + 1].clone().requires_grad_()
        wanted = torch.autograd.grad(f(m, x).sin().sum(), (m, x))
        torch.testing.assert_close(found[0][i], wanted[0], atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(found[1][i], wanted[1][0], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("in_dims", [(0, None), (0, 0), (None, 1), (3, 0)])
def test_vmap_over_weights_and_inputs(
    unit: Unit, in_dims: tuple[int | None, int | None], each: bool, generator: torch.Generator
) -> None:
    size = 2
    draws = [parameters(D, B, generator, norm=NORM, symmetric=unit.symmetric, each=each) for _ in range(size)]
    theta = [
        draws[0][k] if dim is None else torch.stack([draw[k] for draw in draws], dim) for k, dim in enumerate(in_dims)
    ]
    loss = loss_of(unit)
    found = vmap(grad(loss, (0, 1)), in_dims)(*theta)
    values = vmap(function(unit), in_dims)(*theta)
    for i in range(size):
        chosen = [
            (t if dim is None else t.select(dim, i)).clone().requires_grad_()
            for t, dim in zip(theta, in_dims, strict=True)
        ]
        torch.testing.assert_close(values[i], function(unit)(*chosen), atol=1e-11, rtol=0)
        for g, w in zip(found, torch.autograd.grad(loss(*chosen), chosen), strict=True):
            torch.testing.assert_close(g[i], w, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (0, 0)])
def test_merging_and_looping_agree(
    in_dims: tuple[int | None, int | None], monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    """vmap merges the mapped axis into the batch, or loops over it: the same numbers."""
    unit = Unit(D, "tanh", symmetric=False, prepares=True)
    draws = [parameters(D, B, generator, norm=NORM, symmetric=False, each=True) for _ in range(3)]
    theta = [draws[0][k] if dim is None else torch.stack([d[k] for d in draws]) for k, dim in enumerate(in_dims)]
    transform = vmap(grad(loss_of(unit), (0, 1)), in_dims)
    merged = transform(*theta)
    monkeypatch.setattr(fold, "LARGE", 0)
    for a, b in zip(merged, transform(*theta), strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


def test_prepared_for_other_weights_is_not_used_inside_vmap(generator: torch.Generator) -> None:
    """What the caller prepared belongs to one θ; where vmap brings others it is made again."""
    unit = Unit(D, "tanh", symmetric=False, prepares=True)
    M, c = parameters(D, B, generator, norm=NORM, symmetric=False)
    seen: list[Prepared | None] = []
    inner = by_iteration(unit, Plain(), Stop(tolerance=1e-13, max_steps=1000))

    def solve(z0: Tensor, theta: Theta, prepared: Prepared | None) -> tuple[Iterate, Prepared]:
        seen.append(prepared)
        return inner(z0, theta, prepared)

    ready = unit.prepare((M, c))
    problem = FixedPoint(splitting=unit, solve=solve, tolerance=1e-13, prepared=ready)

    def f(m: Tensor, x: Tensor) -> Tensor:
        return Implicit().equilibrate(problem, torch.zeros_like(c), (m, x)).z

    torch.testing.assert_close(f(M, c), function(unit)(M, c))
    assert seen.pop() is ready
    weights = torch.stack([M, 0.5 * M])
    torch.testing.assert_close(vmap(f, (0, None))(weights, c), torch.stack([function(unit)(m, c) for m in weights]))
    assert seen == [None, None]


def test_nested_vmap(generator: torch.Generator) -> None:
    unit = Unit(D, "tanh")
    M, c = parameters(D, 6, generator, norm=NORM)
    f = function(unit)
    weights = torch.stack([M, 0.5 * M])
    found = vmap(lambda m: vmap(grad(lambda x: f(m, x[None]).sum()))(c))(weights)
    for i in range(2):
        x = c.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(f(weights[i], x).sum(), x)
        torch.testing.assert_close(found[i], wanted, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", ["relu", "tanh", "softmax"])
def test_only_asked_for(kind: Kind, generator: torch.Generator) -> None:
    """One parameter needs a gradient, the other does not; an unused equilibrium costs nothing."""
    M, c = parameters(D, B, generator, norm=NORM)
    unit = Unit(D, kind)
    x = c.clone().requires_grad_()
    (alone,) = torch.autograd.grad(function(unit)(M, x).sum(), x)
    m, x = M.clone().requires_grad_(), c.clone().requires_grad_()
    _, both = torch.autograd.grad(function(unit)(m, x).sum(), (m, x))
    torch.testing.assert_close(alone, both)
    assert not function(unit)(M, c).requires_grad
