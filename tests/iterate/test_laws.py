"""Every iteration, on every map it is made for: the answer of an independent solve, and the manners of a driver."""

import pytest
import torch
from torch import Tensor

from opteq_cvx.iterate.accelerated import Accelerated
from opteq_cvx.iterate.anderson import Anderson
from opteq_cvx.iterate.compiled import Compiled
from opteq_cvx.iterate.contract import Iterate, Iteration, Stop
from opteq_cvx.iterate.halpern import Halpern
from opteq_cvx.iterate.inertial import Inertial
from opteq_cvx.iterate.plain import Plain
from opteq_cvx.iterate.restarted import RestartedHalpern
from tests.iterate.maps import Unit, affine_solution, relu_solution, symmetric

D, B = 12, 24
ATOL = 3.1e-8  # certified: a relative 1e-9 by tolerance and margin, on states of norm below 31
FAST = [  # with the ceilings of steps for the affine and the relu unit
    pytest.param(Plain(), (210, 170), id="plain"),
    pytest.param(Plain(relaxation=0.7), (300, 250), id="mann"),
    pytest.param(Accelerated(), (80, 70), id="accelerated"),
    pytest.param(Inertial(), (110, 90), id="inertial"),
    pytest.param(RestartedHalpern(), (700, 700), id="restarted"),
    pytest.param(Anderson(), (30, 30), id="anderson"),
    pytest.param(Anderson(memory=3), (70, 65), id="anderson3"),
    pytest.param(Anderson(memory=5, relaxation=0.5), (55, 75), id="anderson_relaxed"),
    pytest.param(Compiled(backend="eager"), (210, 170), id="compiled"),
]
ALL = [*(pytest.param(p.values[0], id=p.id) for p in FAST), pytest.param(Halpern(), id="halpern")]


@pytest.fixture
def unit(generator: torch.Generator) -> Unit:
    scale = torch.logspace(-3, 0.5, B, dtype=torch.float64)[:, None]
    return Unit(symmetric(D, 0.9, generator), scale * torch.randn(B, D, dtype=torch.float64, generator=generator))


def run(iteration: Iteration, unit: Unit, tolerance: float = 1e-9, **options: int) -> Iterate:
    stop = Stop(tolerance=tolerance, max_steps=options.get("max_steps", 5000), margin=torch.full((1,), 0.1))
    return iteration.run(unit.restrict, torch.zeros_like(unit.c), stop)


@pytest.mark.parametrize(("iteration", "ceilings"), FAST)
def test_affine_answer(iteration: Iteration, ceilings: tuple[int, int], unit: Unit) -> None:
    unit.act = lambda a: a
    found = run(iteration, unit)
    assert found.converged.all()
    assert found.finite.all()
    torch.testing.assert_close(found.z, affine_solution(unit), atol=ATOL, rtol=0)
    assert int(found.steps.max()) <= ceilings[0]


@pytest.mark.parametrize(("iteration", "ceilings"), FAST)
def test_relu_answer(iteration: Iteration, ceilings: tuple[int, int], unit: Unit) -> None:
    found = run(iteration, unit)
    assert found.converged.all()
    torch.testing.assert_close(found.z, relu_solution(unit), atol=ATOL, rtol=0)
    assert int(found.steps.max()) <= ceilings[1]


@pytest.mark.parametrize("iteration", ALL)
def test_reported_residual_is_that_of_the_state(iteration: Iteration, unit: Unit) -> None:
    found = run(iteration, unit, tolerance=1e-2, max_steps=300)
    gap = (found.z - unit.restrict(None)(found.z)).norm(dim=1) / found.z.norm(dim=1).clamp_min(1.0)
    torch.testing.assert_close(found.residual, gap, atol=1e-14, rtol=1e-9)
    assert torch.equal(found.converged, found.residual <= 1e-3)


def test_early_steps_in_float32_reach_the_same_answer(unit: Unit) -> None:
    stop = Stop(tolerance=1e-10, max_steps=400, margin=torch.full((1,), 0.1))
    coarse = Unit(unit.M.float(), unit.c.float())
    found = Inertial().run_mixed(coarse.restrict(None), unit.restrict, torch.zeros_like(unit.c), stop)
    assert found.converged.all()
    assert found.z.dtype is torch.float64
    torch.testing.assert_close(found.z, relu_solution(unit), atol=ATOL / 10, rtol=0)
    assert coarse.calls
    assert len(unit.calls) < int(found.steps.max())  # the steps count both


def test_samples_that_overflow_float32_start_again(unit: Unit) -> None:
    unit.c[0] = 1e60
    coarse = Unit(unit.M.float(), unit.c.float())
    stop = Stop(tolerance=1e-10, max_steps=400, margin=torch.full((1,), 0.1))
    found = Inertial().run_mixed(coarse.restrict(None), unit.restrict, torch.zeros_like(unit.c), stop)
    assert found.converged.all()
    want = relu_solution(unit)
    torch.testing.assert_close(found.z[0], want[0], atol=0, rtol=1e-9)
    torch.testing.assert_close(found.z[1:], want[1:], atol=ATOL / 10, rtol=0)


@pytest.mark.parametrize("iteration", ALL)
def test_start_unchanged(iteration: Iteration, unit: Unit) -> None:
    start = torch.ones_like(unit.c)
    before = start.clone()
    iteration.run(unit.restrict, start, Stop(tolerance=1e-6, max_steps=50))
    assert torch.equal(start, before)


@pytest.mark.parametrize("iteration", ALL)
def test_buffers_of_the_map_may_be_reused(iteration: Iteration, unit: Unit) -> None:
    stop = Stop(tolerance=1e-6, max_steps=200)
    fresh = iteration.run(unit.restrict, torch.zeros_like(unit.c), stop)
    reused = iteration.run(unit.buffered, torch.zeros_like(unit.c), stop)
    assert torch.equal(fresh.z, reused.z)
    assert torch.equal(fresh.steps, reused.steps)


@pytest.mark.parametrize("iteration", ALL)
def test_batch_equals_loop(iteration: Iteration, unit: Unit) -> None:
    stop = Stop(tolerance=1e-9, max_steps=400, margin=torch.full((1,), 0.1))
    together = iteration.run(unit.restrict, torch.zeros_like(unit.c), stop)
    assert len(set(together.steps.tolist())) > 1 or isinstance(iteration, Halpern)
    for i in range(B):
        alone = iteration.run(Unit(unit.M, unit.c[i : i + 1]).restrict, torch.zeros(1, D, dtype=torch.float64), stop)
        torch.testing.assert_close(alone.z[0], together.z[i], atol=1e-8, rtol=0)
        moves = 2 if isinstance(iteration, Inertial) else 1  # the batch shares when momentum is tuned
        assert abs(int(alone.steps) - int(together.steps[i])) <= 5 * moves  # rounding may move a check


@pytest.mark.parametrize("iteration", ALL)
def test_bad_samples_leave_the_others_alone(iteration: Iteration, unit: Unit) -> None:
    stop = Stop(tolerance=1e-9, max_steps=400)
    clean = iteration.run(unit.restrict, torch.zeros_like(unit.c), stop)
    spoiled = unit.c.clone()
    spoiled[3], spoiled[7, 2], spoiled[20] = torch.nan, torch.inf, -torch.inf
    found = iteration.run(Unit(unit.M, spoiled, torch.tanh).restrict, torch.zeros_like(unit.c), stop)
    reference = iteration.run(Unit(unit.M, unit.c, torch.tanh).restrict, torch.zeros_like(unit.c), stop)
    bad = ~torch.isfinite(spoiled @ spoiled.new_ones(D, 1)).squeeze(1) & torch.isnan(torch.tanh(spoiled)).any(1)
    assert torch.equal(~found.finite, bad)
    assert torch.isfinite(found.z).all()  # the best finite iterate, here the start
    good = ~bad & torch.isfinite(spoiled).all(1)
    torch.testing.assert_close(found.z[good], reference.z[good], atol=1e-8, rtol=0)
    assert not found.converged[bad].any()
    assert clean.finite.all()


@pytest.mark.parametrize("iteration", ALL)
def test_divergence_is_seen_and_frozen(iteration: Iteration, generator: torch.Generator) -> None:
    scale = torch.tensor([0.5, 3.0, 0.5], dtype=torch.float64)[:, None]

    def restrict(rows: Tensor | None) -> object:
        factor = scale if rows is None else scale[rows]

        def T(z: Tensor) -> Tensor:
            # expands without a fixed point for the second sample: quadratic growth, away from zero
            return factor * (z + 1.0) + torch.where(factor > 1, z * z, 0.0)

        return T

    found = iteration.run(restrict, torch.zeros(3, 4, dtype=torch.float64), Stop(tolerance=1e-6, max_steps=4000))
    assert found.finite.tolist() == [True, False, True]
    assert torch.isfinite(found.z).all()
    if not isinstance(iteration, Halpern):
        assert found.converged.tolist() == [True, False, True]
    assert int(found.steps[1]) < 100


@pytest.mark.parametrize("iteration", ALL)
def test_start_at_the_solution_costs_one_evaluation(iteration: Iteration, unit: Unit) -> None:
    unit.act = lambda a: a
    found = iteration.run(unit.restrict, affine_solution(unit), Stop(tolerance=1e-6, max_steps=100))
    assert found.steps.tolist() == [1] * B
    assert len(unit.calls) == 1


@pytest.mark.parametrize("iteration", ALL)
@pytest.mark.parametrize("max_steps", [1, 2, 6, 9, 10])
def test_max_steps_counts_evaluations(iteration: Iteration, max_steps: int, unit: Unit) -> None:
    found = iteration.run(unit.restrict, torch.zeros_like(unit.c), Stop(tolerance=0.0, max_steps=max_steps))
    assert len(unit.calls) == max_steps
    # Anderson gets some samples below rounding in six steps; nobody else is asked for less than 4 eps so soon
    assert found.steps[~found.converged].tolist() == [max_steps] * int((~found.converged).sum())
    assert int(found.steps.max()) == max_steps
    assert found.converged.sum() <= (B - 1 if isinstance(iteration, Anderson) else 0)


@pytest.mark.parametrize("iteration", ALL)
def test_float32(iteration: Iteration, unit: Unit) -> None:
    single = Unit(unit.M.float(), unit.c.float())
    found = iteration.run(single.restrict, torch.zeros_like(single.c), Stop(tolerance=1e-4, max_steps=20000))
    assert found.z.dtype == found.residual.dtype == torch.float32
    assert found.converged.all()
    torch.testing.assert_close(found.z.double(), relu_solution(unit), atol=1e-2, rtol=0)


@pytest.mark.parametrize("iteration", ALL)
def test_no_gradient_is_recorded(iteration: Iteration, unit: Unit) -> None:
    unit.c.requires_grad_()
    found = iteration.run(unit.restrict, torch.zeros_like(unit.c.detach()), Stop(tolerance=1e-3, max_steps=100))
    assert not found.z.requires_grad
