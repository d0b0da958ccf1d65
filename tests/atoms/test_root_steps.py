"""Roots take few steps, also in batches where some rows have none to find."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from opteq_cvx.atoms import roots
from opteq_cvx.atoms.contract import Atom
from opteq_cvx.atoms.kl_div import KlDiv
from opteq_cvx.atoms.neg_geo_mean import NegGeoMean
from opteq_cvx.atoms.pow_cone import PowCone
from opteq_cvx.ir.frozen import FrozenDict

Residual = Callable[[Tensor], tuple[Tensor, Tensor]]
SCALES = (1e-2, 1.0, 1e2)
ROWS = [
    (KlDiv(), (2,), {}, 9),
    (NegGeoMean.from_static(FrozenDict(axes=(-1,), w=(0.5, 0.5))), (2,), {}, 15),
    (PowCone(), (3,), {"alpha": torch.tensor([0.3], dtype=torch.float64)}, 18),
]


@pytest.mark.parametrize(("atom", "event", "data", "most"), ROWS, ids=lambda r: type(r).__name__)
def test_steps_are_few(
    atom: Atom, event: tuple[int, ...], data: dict[str, Tensor], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def counted(residual: Residual, *rest: Any) -> Tensor:
        counts.append(0)

        def called(x: Tensor) -> tuple[Tensor, Tensor]:
            counts[-1] += 1
            return residual(x)

        return roots.newton(called, *rest)

    monkeypatch.setattr(importlib.import_module(type(atom).__module__), "newton", counted)
    generator = torch.Generator().manual_seed(0)
    for scale in SCALES:
        for step in (1e-4, 1e-2, 1.0, 1e2, 1e4):
            v = scale * torch.randn((200, *event), generator=generator, dtype=torch.float64)
            atom.prox(v, torch.full((200, 1), step, dtype=torch.float64), data)
    assert len(counts) == 15
    assert max(counts) <= most, counts
