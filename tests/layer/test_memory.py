"""What a layer keeps for backward: constant in the number of iterations, except where it is unrolled."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import opteq_cvx as oc
from opteq_cvx.adjoint import AdjointMode
from tests.layer.cases import CASES


def kept(adjoint: AdjointMode, tolerance: float, name: str = "opteq") -> tuple[int, int]:
    """(bytes of distinct storages saved by autograd, most iterations of a sample) of one forward pass."""
    case = next(c for c in CASES if c.name == name)
    problem, inputs, outputs = case.make()
    layer = oc.compile(problem, inputs=inputs, outputs=outputs, adjoint=adjoint, tolerance=tolerance).double()
    rng = np.random.default_rng(0)
    columns = zip(*(case.draw(rng) for _ in range(32)), strict=True)
    x = [torch.tensor(np.stack(c)).requires_grad_() for c in columns]
    storages: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        alive.append(t)
        return t

    with saved_tensors_hooks(pack, lambda t: t):
        solution = layer.solve(*x)
    return sum(storages.values()), int(solution.stats.steps.max())


@pytest.mark.parametrize(
    "adjoint", [oc.Implicit(), oc.EquilibriumPropagation(), oc.Truncated(steps=2)], ids=lambda a: type(a).__name__
)
@pytest.mark.parametrize(("name", "more"), [("opteq", 2.0), ("inequalities", 1.05)])  # Newton ends the second early
def test_memory_does_not_grow_with_the_iterations(name: str, more: float, adjoint: AdjointMode) -> None:
    few, short = kept(adjoint, 1e-2, name)
    many, long = kept(adjoint, 1e-12, name)
    assert long > more * short
    assert many <= 1.01 * few


def test_memory_of_the_unrolled_adjoint_grows_with_its_steps() -> None:
    few, _ = kept(oc.Unrolled(steps=40), 1e-2)
    many, _ = kept(oc.Unrolled(steps=160), 1e-2)
    assert many > 2 * few
