"""Multipliers of level sets that an atom finds itself: roots of the equation of its prox, checked elsewhere."""

import pytest
import torch

from opteq_cvx.atoms.calculus import Summed
from opteq_cvx.atoms.contract import Atom
from opteq_cvx.atoms.log_sum_exp import LogSumExp
from opteq_cvx.atoms.logistic import Logistic

BELOW = (1e-9, 1e-4, 0.1, 1.0, 30.0, 1e3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("rise", [0.0, 1.0], ids=["level", "epigraph"])
@pytest.mark.parametrize(
    "atom", [LogSumExp(), LogSumExp((-2, -1)), Summed(LogSumExp(), (-1,))], ids=["last", "matrix", "summed"]
)
def test_the_root_of_the_equation(
    atom: Atom, rise: float, scale: float, dtype: torch.dtype, generator: torch.Generator
) -> None:
    """f(prox_{μf}(v)) = c + aμ, to rounding; μ > 0 even where v is a billionth above the level."""
    v = (scale * torch.randn(len(BELOW), 20, 3, 4, dtype=torch.float64, generator=generator)).to(dtype)
    level = atom.value(v, {})
    depth = torch.tensor(BELOW, dtype=dtype).reshape(-1, 1, 1, 1)
    c = level - depth
    mu = atom.crossing(v, c, rise, {})
    assert mu is not None
    assert bool((mu > 0).all())
    found = atom.value(atom.prox(v, mu, {}), {})
    size = 1.0 + c.abs() + rise * mu + scale
    off = torch.where(level > c, (found - c - rise * mu).abs() / size, 0.0)  # in float32 a billionth is no number
    assert float(off.max()) <= 30 * torch.finfo(dtype).eps


def test_points_inside_get_a_number_and_nan_stays() -> None:
    v = torch.tensor([[0.0, 1.0], [torch.nan, 1.0]], dtype=torch.float64)
    mu = LogSumExp().crossing(v, torch.full((2, 1), 10.0, dtype=torch.float64), 0.0, {})
    assert mu is not None
    assert bool(mu[0].isfinite())
    assert bool(mu[1].isnan())


@pytest.mark.parametrize("atom", [Logistic(), Summed(LogSumExp(), (-2,))], ids=["logistic", "several"])
def test_others_leave_it_to_their_prox(atom: Atom) -> None:
    assert atom.crossing(torch.zeros(3, 4), torch.zeros(3, 1), 0.0, {}) is None
