"""The line search of Newton steps on slopes whose zeros are known: kinks, powers, noise."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from opteq_cvx.splitting.line_search import TRIES, search

PLACES = torch.tensor([3e-9, 4e-7, 7e-5, 2e-3, 0.3, 0.97, 1.7, 40.0], dtype=torch.float64)
"""Of kinks, or of zeros."""

SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "a steep piece behind a kink": lambda t: -1.0 + 1e9 / PLACES * torch.relu(t - PLACES),
    "a piece that is not steep": lambda t: -1.0 + 3.0 / PLACES * torch.relu(t - PLACES),
    "two kinks": lambda t: -1.0 + 0.3 / PLACES * torch.relu(t - PLACES) + 1e5 / PLACES * torch.relu(t - 2.0 * PLACES),
    "a cube": lambda t: (t / PLACES) ** 3 - 1.0,
    "a line": lambda t: t / PLACES - 1.0,
}


def _searched(slope: Callable[[Tensor], Tensor], noise: float = 0.0) -> tuple[Tensor, int]:
    calls = 0

    def along(t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return slope(t)

    at_zero, none = -torch.ones_like(PLACES), torch.zeros_like(PLACES, dtype=torch.bool)
    return search(along, at_zero, torch.full_like(PLACES, noise), none), calls


@pytest.mark.parametrize("name", SLOPES)
def test_the_slope_at_the_step_is_a_tenth(name: str) -> None:
    t, calls = _searched(SLOPES[name])
    assert (SLOPES[name](t).abs() <= 0.1).all()
    assert calls <= (TRIES if name == "a cube" else 18)


def test_a_slope_of_rounding_errors_is_read_once(generator: torch.Generator) -> None:
    t, calls = _searched(lambda t: 0.4 * torch.randn(t.shape, generator=generator, dtype=t.dtype), noise=5.0)
    assert calls == 1
    assert (t == 1.0).all()


def test_where_the_slope_jumps_the_step_descends() -> None:
    """No point has a small slope: the step stays in front of the jump, and near to it."""
    t, _ = _searched(lambda t: torch.where(t < PLACES, -1.0, 1e6))
    assert (t < PLACES).all()
    assert (t[2:] > 0.9 * PLACES[2:]).all()


def test_samples_that_need_no_step_get_none() -> None:
    found = torch.arange(len(PLACES)) % 2 == 0
    t = search(SLOPES["a line"], -torch.ones_like(PLACES), torch.zeros_like(PLACES), found)
    assert (t[found] == 0).all()
    torch.testing.assert_close(t[~found], PLACES[~found], rtol=0.11, atol=0.0)
