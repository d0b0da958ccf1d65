"""The driver's own promises: margins, freezing, compaction, history, the observer."""

import pytest
import torch

from opteq_cvx.iterate.anderson import Anderson
from opteq_cvx.iterate.contract import Stop
from opteq_cvx.iterate.plain import Plain
from tests.iterate.maps import Unit, affine_solution, symmetric

D = 10


@pytest.fixture
def unit(generator: torch.Generator) -> Unit:
    c = torch.randn(64, D, dtype=torch.float64, generator=generator)
    return Unit(symmetric(D, 0.99, generator), torch.logspace(-6, 0, 64, dtype=torch.float64)[:, None] * c, lambda a: a)


def test_margin_certifies_the_distance(unit: Unit) -> None:
    start, answer = torch.zeros_like(unit.c), affine_solution(unit)
    bare = Plain().run(unit.restrict, start, Stop(tolerance=1e-5, max_steps=5000))
    sure = Plain().run(unit.restrict, start, Stop(tolerance=1e-5, max_steps=5000, margin=torch.full((1,), 0.01)))
    each = Plain().run(unit.restrict, start, Stop(tolerance=1e-5, max_steps=5000, margin=torch.full((64,), 0.01)))
    distance = [((f.z - answer).norm(dim=1) / f.z.norm(dim=1).clamp_min(1.0)).max() for f in (bare, sure)]
    assert distance[0] > 1e-5  # the residual alone promises nothing
    assert distance[1] <= 1e-5
    assert torch.equal(each.z, sure.z)


def test_tolerance_below_rounding_is_raised_to_it(unit: Unit) -> None:
    found = Plain().run(unit.restrict, torch.zeros_like(unit.c), Stop(tolerance=1e-30, max_steps=20000))
    assert found.converged.all()
    assert float(found.residual.max()) <= 4 * torch.finfo(torch.float64).eps


def test_finished_rows_leave_the_batch(unit: Unit) -> None:
    found = Plain().run(unit.restrict, torch.zeros_like(unit.c), Stop(tolerance=1e-7, max_steps=5000))
    assert found.converged.all()
    assert unit.calls[0] == 64
    assert unit.calls[-1] <= 32
    assert sum(unit.calls) < 0.9 * 64 * len(unit.calls)
    gap = (found.z - (found.z @ unit.M + unit.c)).norm(dim=1) / found.z.norm(dim=1).clamp_min(1.0)
    torch.testing.assert_close(found.residual, gap, atol=1e-14, rtol=1e-6)  # rows came back in their order


@pytest.mark.parametrize("iteration", [Plain(), Anderson(memory=4)])
def test_history_and_progress(iteration: Plain | Anderson, unit: Unit) -> None:
    seen: list[tuple[int, torch.Tensor]] = []
    found = iteration.run(
        unit.restrict,
        torch.zeros_like(unit.c),
        Stop(tolerance=1e-7, max_steps=5000),
        history=True,
        progress=lambda step, residual: seen.append((step, residual.clone())),
    )
    assert found.history is not None
    assert found.history.shape == (len(seen), 64)
    assert [step for step, _ in seen][:3] == [1, 6, 11]
    assert torch.equal(torch.stack([residual for _, residual in seen]), found.history)
    torch.testing.assert_close(found.history[-1], found.residual)  # everything converged: the last is the best
    assert (found.history.amin(0) >= found.residual - 1e-18).all()


def test_best_iterate_is_kept(generator: torch.Generator) -> None:
    """A map that approaches a saddle and leaves it again: the answer is the nearest approach that was checked."""
    matrix = torch.diag(torch.tensor([0.5, 1.3], dtype=torch.float64))
    unit = Unit(matrix, torch.zeros(1, 2, dtype=torch.float64), lambda a: a)
    start = torch.tensor([[100.0, 1e-3]], dtype=torch.float64)
    found = Plain().run(unit.restrict, start, Stop(tolerance=1e-12, max_steps=60, check_every=1), history=True)
    assert found.history is not None
    assert not found.converged.any()
    assert float(found.residual) == float(found.history.min())
    assert float(found.residual) < float(found.history[-1]) / 10


def test_frozen_samples_stay_at_their_first_success(generator: torch.Generator) -> None:
    """Seven samples that diverge later than they converge, one that goes on: results are those of their own stop."""
    c = torch.randn(8, D, dtype=torch.float64, generator=generator)
    unit = Unit(symmetric(D, 0.999, generator), c * torch.logspace(-9, 0, 8, dtype=torch.float64)[:, None], lambda a: a)
    stop = Stop(tolerance=1e-6, max_steps=20000)
    together = Plain().run(unit.restrict, torch.zeros_like(unit.c), stop)
    for i in range(8):
        alone = Plain().run(Unit(unit.M, unit.c[i : i + 1], unit.act).restrict, torch.zeros(1, D).double(), stop)
        torch.testing.assert_close(alone.z[0], together.z[i], atol=1e-12, rtol=1e-9)


def test_empty_batch() -> None:
    unit = Unit(torch.eye(3, dtype=torch.float64), torch.zeros(0, 3, dtype=torch.float64))
    found = Plain().run(unit.restrict, unit.c, Stop(tolerance=1e-6, max_steps=10))
    assert found.z.shape == (0, 3)


@pytest.mark.gpu
def test_cuda_equals_cpu(unit: Unit) -> None:
    stop = Stop(tolerance=1e-8, max_steps=5000)
    for iteration in (Plain(), Anderson()):
        here = iteration.run(unit.restrict, torch.zeros_like(unit.c), stop)
        there_unit = Unit(unit.M.cuda(), unit.c.cuda(), unit.act)
        there = iteration.run(there_unit.restrict, torch.zeros_like(there_unit.c), stop)
        torch.testing.assert_close(there.z.cpu(), here.z, atol=1e-7, rtol=0)
        assert there.converged.all()
        assert (there.steps.cpu() - here.steps).abs().max() <= 5
