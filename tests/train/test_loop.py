"""The loop with a small ordinary network: learning, metrics, and runs that are interrupted."""

import os
import signal
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from typing_extensions import override

from opteq_cvx.errors import FileError, InputError, OpteqError
from opteq_cvx.train.data import Data, Split
from opteq_cvx.train.loop import CHECKPOINT, METRICS, train
from opteq_cvx.train.metrics import read_metrics
from opteq_cvx.train.options import Cosine, DeviceOptions, TrainOptions

CPU = DeviceOptions(accelerator="cpu")
OPTIONS = TrainOptions(epochs=4, batch_size=16, schedule=Cosine(peak=0.05), seed=3)


def task(n: int = 80) -> Data:
    """Two Gaussian clouds in five dimensions."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 2
    x = torch.randn(n, 5, generator=generator) + 2.0 * y[:, None]
    return Data("clouds", Split(x, y), Split(x[:23] + 0.1, y[:23]), 2)


class Network(nn.Module):
    """A perceptron that sends itself SIGINT in the forward pass number `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        self.stop_at, self.calls = stop_at, 0

    @override
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        if self.training and self.calls == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return self.body(x)


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks have equal weights and running statistics, bit by bit."""
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(bool((first[k] == second[k]).all()) for k in first)


def test_a_run_learns_and_writes_one_row_per_epoch(tmp_path: Path) -> None:
    run = train(Network(), task(), tmp_path, options=OPTIONS, devices=CPU)
    assert not run.interrupted
    assert [row["epoch"] for row in run.rows] == [0, 1, 2, 3]
    assert run.test_accuracy > 0.9
    assert run.rows[-1]["train_loss"] < run.rows[0]["train_loss"]
    assert {"train_accuracy", "test_loss", "test_accuracy", "rate", "seconds"} <= set(run.rows[0])
    assert read_metrics(tmp_path / METRICS) == list(run.rows)


def test_the_reported_accuracy_is_that_of_the_final_weights(tmp_path: Path) -> None:
    model, data = Network(), task()
    run = train(model, data, tmp_path, options=OPTIONS, devices=CPU)
    with torch.no_grad():
        expected = (model.eval()(data.test.x).argmax(-1) == data.test.y).double().mean()
    assert run.test_accuracy == pytest.approx(float(expected), abs=1e-12)


# 5 batches an epoch: within an epoch, at the last step of one, in the first step of all
@pytest.mark.parametrize("stop_at", [1, 8, 10])
def test_an_interrupted_run_resumes_bit_by_bit(tmp_path: Path, stop_at: int) -> None:
    whole = Network()
    full = train(whole, task(), tmp_path / "whole", options=OPTIONS, devices=CPU)
    first = Network(stop_at)
    cut = train(first, task(), tmp_path / "cut", options=OPTIONS, devices=CPU)
    assert cut.interrupted
    assert first.calls == stop_at
    second = Network()
    nn.init.zeros_(second.body[0].weight)  # whatever it held before, the checkpoint decides
    resumed = train(second, task(), tmp_path / "cut", options=OPTIONS, devices=CPU, resume=True)
    assert not resumed.interrupted
    assert same(whole, second)
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in full.rows]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in resumed.rows] == strip


def test_the_handler_of_ctrl_c_is_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    train(Network(2), task(), tmp_path, options=OPTIONS, devices=CPU)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    model = Network()
    train(model, task(), tmp_path, options=OPTIONS, devices=CPU)
    again = Network()
    run = train(again, task(), tmp_path, options=OPTIONS, devices=CPU, resume=True)
    assert again.calls == 0
    assert len(run.rows) == 4
    assert same(model, again)


def test_without_resume_a_folder_is_started_afresh(tmp_path: Path) -> None:
    train(Network(12), task(), tmp_path, options=OPTIONS, devices=CPU)
    run = train(Network(), task(), tmp_path, options=OPTIONS, devices=CPU)
    assert [row["epoch"] for row in run.rows] == [0, 1, 2, 3]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(Network(), task(), tmp_path, options=OPTIONS, devices=CPU)
    other = TrainOptions(epochs=5, batch_size=16, seed=3)
    with pytest.raises(InputError, match="20 steps"):
        train(Network(), task(), tmp_path, options=other, devices=CPU, resume=True)
    with pytest.raises(FileError, match="another model"):
        train(nn.Linear(5, 2), task(), tmp_path, options=OPTIONS, devices=CPU, resume=True)
    (tmp_path / CHECKPOINT).write_bytes(b"damaged")
    with pytest.raises(FileError, match="cannot be read"):
        train(Network(), task(), tmp_path, options=OPTIONS, devices=CPU, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    data = task()
    data.train.x[3, 0] = torch.nan
    with pytest.raises(OpteqError, match="training loss is nan"):
        train(Network(), data, tmp_path, options=OPTIONS, devices=CPU)


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch_size is 100 with 80"):
        train(Network(), task(), tmp_path, options=TrainOptions(batch_size=100), devices=CPU)


def test_nothing_is_printed_and_nothing_warned(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(Network(), task(), tmp_path, options=OPTIONS, devices=CPU)
    assert capfd.readouterr() == ("", "")


@pytest.mark.gpu
def test_a_run_on_a_gpu_learns(tmp_path: Path) -> None:
    run = train(Network(), task(), tmp_path, options=OPTIONS, devices=DeviceOptions(accelerator="cuda"))
    assert run.test_accuracy > 0.9
