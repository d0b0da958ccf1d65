"""Projections on the exponential and power cones at 13 orders of magnitude: Moreau's conditions to rounding."""

import itertools

import pytest
import torch
from torch import Tensor

from opteq_cvx.atoms import Atom, Data, atom

SIZES = (0.0, 1e-12, 1e-6, 1e-3, 0.5, 1.0, 10.0, 1e3, 1e8)
ROUNDING = {torch.float64: 4e-15, torch.float32: 2e-6}
ONE = torch.ones(1)


def grid(dtype: torch.dtype) -> Tensor:
    signed = [*SIZES, *(-s for s in SIZES if s)]
    return torch.tensor(list(itertools.product(signed, repeat=3)), dtype=dtype)


def cones(dtype: torch.dtype) -> dict[str, tuple[Atom, Data]]:
    powers = {
        f"pow_cone {a}": (atom("pow_cone")(), {"alpha": torch.full((1, 1), a, dtype=dtype)}) for a in (0.5, 0.3, 0.99)
    }
    return {"exp_cone": (atom("exp_cone")(), {}), **powers}


def test_a_point_on_a_second_order_cone_is_in_it_up_to_rounding_of_its_largest_entry() -> None:
    """(‖x‖, x) with a zero in x, less one unit in the last place; further outside is outside."""
    x = 1e8 * torch.tensor([0.0, 3.0, 4.0, 0.3], dtype=torch.float64)
    length = torch.linalg.vector_norm(x)
    for share, inside in ((1.0, True), (1.0 - 4e-16, True), (1.0 - 1e-6, False)):
        value = atom("soc")().value(torch.cat([share * length[None], x]), {})
        assert (value == 0.0).all() if inside else (value == torch.inf).all()


@pytest.mark.parametrize("name", cones(torch.float64))
@pytest.mark.parametrize("dtype", ROUNDING)
def test_projection(name: str, dtype: torch.dtype) -> None:
    f, data = cones(dtype)[name]
    v = grid(dtype).requires_grad_()
    x = f.prox(v, ONE.to(dtype), data)
    (grad,) = torch.autograd.grad(x.sum(), v)
    assert x.isfinite().all()
    assert grad.isfinite().all()
    x, point = x.detach(), v.detach()
    size = point.abs().amax(-1, keepdim=True).clamp(min=1e-30)
    again, rest = f.prox(x, ONE.to(dtype), data), f.prox(point - x, ONE.to(dtype), data)
    assert float(((again - x).abs() / size).max()) <= ROUNDING[dtype]  # x is in the cone
    assert float((rest.abs() / size).max()) <= ROUNDING[dtype]  # v − x is in the polar cone
    inner = ((x / size) * ((point - x) / size)).sum(-1)
    assert float(inner.abs().max()) <= ROUNDING[dtype]


def test_points_of_the_exponential_cone() -> None:
    """Membership by the definition, without the projection: on the surface and a little to both sides of it."""
    ratio = torch.linspace(-5.0, 5.0, 41, dtype=torch.float64)
    y = torch.rand(41, dtype=torch.float64) + 0.1
    f = atom("exp_cone")()
    for factor, inside in ((1.0, True), (1.0 + 1e-6, True), (1.0 - 1e-6, False)):
        p = torch.stack([ratio * y, y, factor * y * ratio.exp()], dim=-1)
        assert ((f.value(p, {}) == 0) == inside).all()


def test_points_of_the_power_cone() -> None:
    x, y = torch.rand(2, 50, dtype=torch.float64) + 0.1
    alpha = torch.rand(50, 1, dtype=torch.float64) * 0.8 + 0.1
    z = x ** alpha[:, 0] * y ** (1 - alpha[:, 0])
    f = atom("pow_cone")()
    for factor, inside in ((1.0, True), (1.0 - 1e-6, True), (-1.0, True), (1.0 + 1e-6, False)):
        p = torch.stack([x, y, factor * z], dim=-1)
        assert ((f.value(p, {"alpha": alpha}) == 0) == inside).all()
