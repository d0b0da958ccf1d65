"""Projections without a search: the bracketed root of the same function is the oracle, in value and derivative."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from opteq_cvx.atoms import atom
from opteq_cvx.atoms.calculus import Summed, epigraph_prox, level_prox
from opteq_cvx.atoms.closed_sets import closed_epigraph, closed_level, weighted_level

FUNCTIONS: dict[str, tuple[str, dict[str, Any], tuple[int, ...], bool]] = {
    "l1": ("abs", {}, (-2, -1), False),
    "weighted l1": ("abs", {}, (-2, -1), True),
    "weighted l1 of columns": ("abs", {}, (-2,), True),
    "positive parts": ("pos", {}, (-1,), True),
    "groups": ("norm2", {"axes": (-1,)}, (-2, -1), False),
    "weighted groups": ("norm2", {"axes": (-2,)}, (-2, -1), True),
    "squares": ("square", {}, (-1,), False),
    "squares of positive parts": ("square_pos", {}, (-2, -1), False),
}
ENTRIES: dict[str, tuple[str, dict[str, Any], tuple[int, ...], bool]] = {
    "weighted magnitudes": ("abs", {}, (), True),
    "weighted square": ("square", {}, (), True),
    "exp": ("exp", {}, (), True),
    "cube": ("power", {"p": 3.0}, (), True),
    "fourth power": ("power", {"p": 4.0}, (), False),
    "reciprocal": ("power", {"p": -1.0}, (), True),
}


def drawn(
    row: tuple[str, dict[str, Any], tuple[int, ...], bool], generator: torch.Generator
) -> tuple[Summed, Tensor, Tensor, dict[str, Tensor]]:
    """F, points inside and outside, levels, and data."""
    name, static, axes, weighted = row
    f = Summed(atom(name).from_static(static), axes)
    v = torch.randn((40, 3, 4), dtype=torch.float64, generator=generator) * torch.logspace(-1, 1, 40).reshape(-1, 1, 1)
    shape = f.f.value(v[:1], {}).shape[1:]
    weight = 0.2 + torch.rand((1, *shape), dtype=torch.float64, generator=generator)
    data = {"weight": weight.requires_grad_()} if weighted else {}
    level = 0.3 + torch.rand(f.value(v, data).shape, dtype=torch.float64, generator=generator)
    return f, v.requires_grad_(), level.requires_grad_(), data


def same(one: Callable[[], Tensor], other: Callable[[], Tensor], inputs: list[Tensor]) -> None:
    """Values and pullbacks of one random direction."""
    x, y = one(), other()
    torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)
    seed = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    mine, theirs = (torch.autograd.grad(z, inputs, seed) for z in (x, y))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", [*FUNCTIONS, *ENTRIES])
def test_level_sets(name: str, generator: torch.Generator) -> None:
    f, v, c, data = drawn({**FUNCTIONS, **ENTRIES}[name], generator)

    def closed() -> Tensor:
        x = closed_level(f, v, c, data)
        assert x is not None
        return x

    same(closed, lambda: level_prox(f, v, c, data), [v, c, *data.values()])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_epigraphs(name: str, generator: torch.Generator) -> None:
    f, v, c, data = drawn(FUNCTIONS[name], generator)
    s = (3.0 * (c - 0.8)).detach().requires_grad_()  # heights of both signs

    def closed() -> Tensor:
        found = closed_epigraph(f, v, s, data)
        assert found is not None
        return torch.cat([part.flatten() for part in found])

    def rooted() -> Tensor:
        return torch.cat([part.flatten() for part in epigraph_prox(f, v, s, data)])

    same(closed, rooted, [v, s, *data.values()])


def test_weights_of_zero_leave_their_entries(generator: torch.Generator) -> None:
    f, v = Summed(atom("abs").from_static({}), (-1,)), torch.tensor([[3.0, -2.0, 7.0]], dtype=torch.float64)
    weight, one = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64), torch.ones((1, 1), dtype=torch.float64)
    x = closed_level(f, v, one, {"weight": weight})
    torch.testing.assert_close(x, torch.tensor([[1.0, 0.0, 7.0]], dtype=torch.float64))
    mu = weighted_level(v.abs(), 0.0 * weight, one, 0.0)
    assert (mu < 0).all()


def test_an_empty_level_set_gives_a_minimizer() -> None:
    v, below = torch.tensor([[3.0, -2.0]], dtype=torch.float64), torch.tensor([[-1.0]], dtype=torch.float64)
    for name in ("abs", "square"):
        x = closed_level(Summed(atom(name).from_static({}), (-1,)), v, below, {})
        assert x is not None
        assert not x.any()
