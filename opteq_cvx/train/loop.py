"""The training loop over Lightning Fabric: one device or several, checkpoints, metrics, progress."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from opteq_cvx.errors import InputError, OpteqError, message
from opteq_cvx.extras import require
from opteq_cvx.record import record
from opteq_cvx.train.augment import augment
from opteq_cvx.train.checkpoint import Position, load_checkpoint, save_checkpoint
from opteq_cvx.train.data import Data
from opteq_cvx.train.interrupt import Interrupt
from opteq_cvx.train.metrics import MetricsFile, Running, read_metrics
from opteq_cvx.train.options import DeviceOptions, TrainOptions
from opteq_cvx.train.progress import Bar

if TYPE_CHECKING:
    from lightning_fabric import Fabric
else:
    Fabric = require("lightning_fabric", extra="train").Fabric

EVALUATION_BATCH = 512
CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class Run:
    """How a run ended: the rows of its metrics file, and whether Ctrl-C cut it short."""

    rows: tuple[dict[str, Any], ...]
    interrupted: bool

    @property
    def test_accuracy(self) -> float:
        """Of the last epoch, in [0, 1]; 0 where no epoch was finished."""
        return float(self.rows[-1]["test_accuracy"]) if self.rows else 0.0


def train(
    model: nn.Module,
    data: Data,
    out: Path,
    *,
    options: TrainOptions | None = None,
    devices: DeviceOptions | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Run:
    """Train `model`, from features (batch, d) to logits (batch, classes), on `data`; write into `out`.

    A run that was interrupted goes on from `out` with `resume=True` and ends in the same weights, bit by bit,
    as one that was not (same options, device and thread count).

    Args:
        model: trained in place; its initial weights are the caller's.
        data: the task; it is copied to the device as a whole.
        out: receives `metrics.jsonl`, one row per epoch, and `checkpoint.safetensors`.
        options: what to do; by default 20 epochs of AdamW.
        devices: where to do it; by default one device that Fabric picks.
        resume: go on from the checkpoint in `out` if there is one.
        progress: show a bar when the error stream is a terminal.

    Raises:
        InputError: options that do not fit the data or the devices.
        FileError: `resume`, and the checkpoint belongs to another run.
        OpteqError: the loss is no longer finite.
    """
    return _Trainer(model, data, out, options or TrainOptions(), devices or DeviceOptions(), progress).run(resume)


class _Trainer:
    """The parts of one run and the steps over them."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        out: Path,
        options: TrainOptions,
        devices: DeviceOptions,
        progress: bool,
    ) -> None:
        self.fabric = Fabric(accelerator=devices.accelerator, devices=devices.devices, strategy=devices.strategy)
        self.data, self.out, self.options, self.progress = data, out, options, progress
        self.per_epoch = _batches_per_epoch(len(data.train), options.batch_size, self.fabric.world_size)
        self.total = self.per_epoch * options.epochs
        self.fabric.launch()
        self.train_x, self.train_y = (self.fabric.to_device(t) for t in (data.train.x, data.train.y))
        self.model = model
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            _groups(model, options.weight_decay), lr=options.schedule.rate(0, self.total)
        )

    def run(self, resume: bool) -> Run:
        """All epochs, or those that are left."""
        torch.manual_seed(self.options.seed)
        wrapped, optimizer = self.fabric.setup(self.model, self.optimizer)
        start, sums = self._resume() if resume else (self._position(0, 0), {})
        log = MetricsFile(self.out / METRICS, keep_epochs=start.epoch) if self.fabric.is_global_zero else None
        done = start.epoch * self.per_epoch + start.step
        shown = self.progress and self.fabric.is_global_zero
        with Interrupt() as interrupt, Bar(self.total, done=done, enabled=shown) as bar:
            for epoch in range(start.epoch, self.options.epochs):
                first, running = (start.step, Running(sums)) if epoch == start.epoch else (0, Running())
                began = time.perf_counter()
                if not self._epoch(epoch, first, running, wrapped, optimizer, interrupt, bar):
                    return self._result(interrupted=True)
                row = {"epoch": epoch, "rate": self._rate(epoch, self.per_epoch - 1)}
                row |= self._means("train", running) | self._means("test", self._evaluate(wrapped))
                if log is not None:
                    log.append(row | {"seconds": round(time.perf_counter() - began, 3)})
                self._save(epoch + 1, 0, Running())
                if self._asked_to_stop(interrupt) and epoch + 1 < self.options.epochs:
                    return self._result(interrupted=True)
        return self._result(interrupted=False)

    def _epoch(
        self,
        epoch: int,
        first: int,
        running: Running,
        wrapped: Any,
        optimizer: Any,
        interrupt: Interrupt,
        bar: Bar,
    ) -> bool:
        """The batches of one epoch from `first` on; False, with a checkpoint, when Ctrl-C cut it short."""
        wrapped.train()
        x, y = self.train_x, self.train_y
        for step, rows in self._batches(epoch, first):
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate(epoch, step)
            batch = augment(x[rows], self.options, seed=epoch * self.per_epoch + step)
            running.add(len(rows), **self._step(wrapped, optimizer, batch, y[rows]))
            bar.advance(epoch, f"loss {running.means()['loss']:.4f}")
            if self._asked_to_stop(interrupt) and step + 1 < self.per_epoch:
                self._save(epoch, step + 1, running)
                return False
        return True

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[int, Int[Tensor, " rows"]]]:
        """This rank's rows of each batch from `first` on; the order depends on seed and epoch alone."""
        generator = torch.Generator().manual_seed(self.options.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.data.train), generator=generator)
        for step in range(first, self.per_epoch):
            batch = order[step * self.options.batch_size : (step + 1) * self.options.batch_size]
            yield step, batch[self.fabric.global_rank :: self.fabric.world_size]

    def _rate(self, epoch: int, step: int) -> float:
        """The scheduled rate of one step of one epoch."""
        return self.options.schedule.rate(epoch * self.per_epoch + step, self.total)

    def _step(
        self, wrapped: Any, optimizer: Any, x: Float[Tensor, "rows d"], y: Int[Tensor, " rows"]
    ) -> dict[str, float]:
        """One AdamW step; the means before it."""
        optimizer.zero_grad()
        loss, means = _measure(wrapped, x, y)
        if not math.isfinite(means["loss"]):
            found = f"the training loss is {means['loss']}"
            raise OpteqError(message(found, "a finite loss", "lower the peak rate, or clean the data"))
        self.fabric.backward(loss)
        if self.options.clip > 0:
            clip = self.options.clip
            self.fabric.clip_gradients(wrapped, optimizer, max_norm=clip, error_if_nonfinite=False)
        optimizer.step()
        return means

    def _evaluate(self, wrapped: Any) -> Running:
        """The means over the test split, of which every rank takes its share."""
        wrapped.eval()
        mine = slice(self.fabric.global_rank, None, self.fabric.world_size)
        x, y = self.data.test.x[mine], self.data.test.y[mine]
        running = Running()
        with torch.no_grad():
            for rows in torch.split(torch.arange(len(y)), EVALUATION_BATCH):
                samples, labels = self.fabric.to_device(x[rows]), self.fabric.to_device(y[rows])
                running.add(len(rows), **_measure(wrapped, samples, labels)[1])
        return running

    def _means(self, prefix: str, running: Running) -> dict[str, float]:
        """The means over all ranks, under `train_loss`, `train_accuracy` and so on."""
        if self.fabric.world_size > 1:
            values = torch.tensor(list(running.sums.values()), dtype=torch.float64)
            total: Any = self.fabric.all_reduce(self.fabric.to_device(values), reduce_op="sum")
            running = Running(dict(zip(running.sums, total.tolist(), strict=True)))
        return {f"{prefix}_{name}": value for name, value in running.means().items()}

    def _asked_to_stop(self, interrupt: Interrupt) -> bool:
        """Whether any rank was asked; all ranks agree."""
        if self.fabric.world_size == 1:
            return interrupt.requested
        flag = self.fabric.to_device(torch.tensor(float(interrupt.requested)))
        total: Any = self.fabric.all_reduce(flag, reduce_op="sum")
        return bool(total > 0)

    def _position(self, epoch: int, step: int) -> Position:
        return Position(epoch, step, self.options.seed, self.total)

    def _save(self, epoch: int, step: int, running: Running) -> None:
        """Write the checkpoint, on the first rank."""
        if self.fabric.is_global_zero:
            position = self._position(epoch, step)
            save_checkpoint(self.out / CHECKPOINT, self.model, self.optimizer, position, running.sums)

    def _resume(self) -> tuple[Position, dict[str, float]]:
        """The checkpoint, if there is one, checked to be of this run."""
        if not (self.out / CHECKPOINT).exists():
            return self._position(0, 0), {}
        position, sums = load_checkpoint(self.out / CHECKPOINT, self.model, self.optimizer)
        if (position.seed, position.total) != (self.options.seed, self.total):
            found = f"a checkpoint in '{self.out}' of seed {position.seed} and {position.total} steps"
            expected = f"seed {self.options.seed} and {self.total} steps"
            raise InputError(message(found, expected, "resume with the options of that run, or start a new folder"))
        return position, sums

    def _result(self, *, interrupted: bool) -> Run:
        """Read back what was written."""
        path = self.out / METRICS
        return Run(tuple(read_metrics(path)) if path.exists() else (), interrupted)


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameters in two groups: matrices decay, biases and scalars do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def _batches_per_epoch(samples: int, batch: int, ranks: int) -> int:
    """Full batches only, so that every step has the same size on every rank."""
    if batch > samples or batch % ranks:
        found = f"batch_size is {batch} with {samples} training samples on {ranks} devices"
        expected = "a batch_size of at most the samples, and a multiple of the number of devices"
        raise InputError(message(found, expected, "change batch_size"))
    return samples // batch


def _measure(
    wrapped: Any, x: Float[Tensor, "rows d"], y: Int[Tensor, " rows"]
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """The loss, and the means to report: loss, accuracy, and how the equilibria inside were reached."""
    with record() as log:
        logits = wrapped(x)
    loss = cross_entropy(logits, y)
    means = {"loss": loss.item(), "accuracy": float((logits.argmax(-1) == y).double().mean())}
    if len(log):
        means["solver_steps"] = float(torch.stack([e.stats.steps.double().mean() for e in log]).mean())
        means["solver_failed"] = float(torch.stack([e.status.failed.double().mean() for e in log]).mean())
    return loss, means
