"""Proxes where nothing is derived take a shorter way: the same numbers and shapes, no input touched."""

import math

import mpmath
import pytest
import torch

from opteq_cvx.atoms import atom
from opteq_cvx.atoms.contract import Atom, Data
from opteq_cvx.atoms.neg_log import NegLog

ENTRYWISE = {
    **{name: atom(name)() for name in ("logistic", "neg_log", "neg_entr", "exp", "xexp", "activation_tanh")},
    **{f"power {p}": atom("power").from_static({"p": p}) for p in (-1.0, 1.5, 3.0)},
    "box": atom("box")(),
}
SHAPES = [((), ()), ((6, 5), (1, 1)), ((6, 5), (6, 1)), ((6, 5), (5,)), ((1, 5), (6, 1)), ((5,), (1, 1))]


@pytest.mark.parametrize(("size", "step_size"), SHAPES)
@pytest.mark.parametrize("name", ENTRYWISE)
def test_without_gradient_as_with_it(name: str, size: tuple[int, ...], step_size: tuple[int, ...]) -> None:
    f: Atom = ENTRYWISE[name]
    v = 3.0 * torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.1, 2.0, max(1, math.prod(step_size)), dtype=torch.float64).reshape(step_size)
    data: Data = {"lower": -t, "upper": t} if name == "box" else {}
    copies = v.clone(), t.clone()
    with torch.no_grad():
        lean = f.prox(v, t, data)
    full = f.prox(v.clone().requires_grad_(), t, data).detach()
    assert lean.shape == full.shape == torch.broadcast_shapes(size, step_size)
    assert torch.allclose(lean, full, rtol=1e-15, atol=1e-15)
    assert torch.equal(v, copies[0])
    assert torch.equal(t, copies[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("t", [0.0, 1e-12, 0.7, 1e8])
def test_neg_log_is_good_to_rounding(t: float, dtype: torch.dtype) -> None:
    """Against the root in 150 digits: no cancellation for v far below 0, no overflow of v²."""
    points = [-1e30, -1e8, -3.0, -1e-12, 0.0, 1e-12, 0.5, 1e8, 1e30]
    v, step = torch.tensor(points, dtype=dtype), torch.full((1,), t, dtype=dtype)
    with mpmath.workdps(150):
        exact = [(a + mpmath.sqrt(a * a + 4 * mpmath.mpf(float(step)))) / 2 for a in map(mpmath.mpf, v.tolist())]
        for x, want in zip(NegLog().prox(v, step, {}).tolist(), exact, strict=True):
            assert abs(x - want) <= 4 * torch.finfo(dtype).eps * want + torch.finfo(dtype).tiny, (x, float(want))
