"""Schedules against torch's own, and options that cannot be."""

import math

import pytest
import torch

from opteq_cvx.errors import InputError
from opteq_cvx.train.options import Cosine, OneCycle, TrainOptions

TOTAL = 40


def torch_rates(scheduler_of: type, **options: float) -> list[float]:
    """The rates of a scheduler of torch over TOTAL steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = scheduler_of(optimizer, **options)
    rates = []
    for _ in range(TOTAL):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_without_warm_up_is_torchs() -> None:
    schedule = Cosine(peak=0.01, warmup=0.0, floor=0.001)
    expected = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=TOTAL, eta_min=0.001)
    assert [schedule.rate(k, TOTAL) for k in range(TOTAL)] == pytest.approx(expected, rel=1e-12)


def test_one_cycle_is_torchs() -> None:
    schedule = OneCycle(peak=0.01)
    expected = torch_rates(
        torch.optim.lr_scheduler.OneCycleLR, max_lr=0.01, total_steps=TOTAL + 1, cycle_momentum=False
    )
    mine = [schedule.rate(k, TOTAL + 1) for k in range(TOTAL)]
    assert mine == pytest.approx(expected, rel=1e-12)


def test_warm_up_rises_to_the_peak_and_never_starts_at_zero() -> None:
    rates = [Cosine(peak=1.0, warmup=0.25).rate(k, TOTAL) for k in range(TOTAL)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("schedule", [Cosine(), OneCycle()])
def test_the_shortest_runs_have_finite_rates(schedule: Cosine | OneCycle, total: int) -> None:
    assert all(math.isfinite(r) and 0 <= r <= schedule.peak for r in (schedule.rate(k, total) for k in range(total)))


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"clip": -1.0}, {"weight_decay": math.nan}])
def test_options_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        TrainOptions(**wrong)  # type: ignore[arg-type]
