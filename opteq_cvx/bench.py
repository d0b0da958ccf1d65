"""How fast a layer is on this machine, beside CVXPY + Clarabel sample by sample, and how accurate while it is."""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.errors import InputError, message
from opteq_cvx.frontend.declaration import Declaration
from opteq_cvx.layer import EquilibriumLayer
from opteq_cvx.verify import verify

HEADINGS = ("batch", "forward ms", "with backward ms", "ms a sample", "iterations", "converged", "against Clarabel")
WARM = 2


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One batch size; times are medians in milliseconds, with the tenth and ninetieth percentile.

    Attributes:
        batch: samples in one call.
        forward: of a call without gradients.
        both: of a call and its backward pass.
        iterations: the mean over the samples.
        converged: the share of the samples.
    """

    batch: int
    forward: tuple[float, float, float]
    both: tuple[float, float, float]
    iterations: float
    converged: float

    @property
    def sample(self) -> float:
        """Milliseconds of forward and backward for each sample."""
        return self.both[0] / self.batch


@dataclass(frozen=True, slots=True)
class Bench:
    """What `bench` measured; `str` is a table.

    Attributes:
        rows: one for each batch size.
        solver: milliseconds that CVXPY with Clarabel needs for one sample, forward only, compiled once.
        error: the largest relative distance of the checked samples to the exact solution.
        threads, dtype, device: of the layer's runs.
    """

    rows: tuple[BenchRow, ...]
    solver: float
    error: float
    threads: int
    dtype: str
    device: str

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                str(row.batch),
                _spread(row.forward),
                _spread(row.both),
                f"{row.sample:.3g}",
                f"{row.iterations:.0f}",
                f"{row.converged:.0%}",
                f"{self.solver * row.batch / row.forward[0]:.3g} times faster",
            )
            for row in self.rows
        ]

    @override
    def __str__(self) -> str:
        cells = [HEADINGS, *self._cells()]
        widths = [max(len(c[i]) for c in cells) for i in range(len(HEADINGS))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        where = f"{self.dtype} on {self.device}, {self.threads} thread{'s' * (self.threads != 1)}"
        facts = f"{where}; Clarabel: {self.solver:.3g} ms a sample; relative error {self.error:.1e}"
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", facts])

    @override
    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(h)}</th>" for h in HEADINGS)
        body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in self._cells())
        return f"<table><tr>{head}</tr>{body}</table><p>{escape(str(self).splitlines()[-1])}</p>"


def bench(
    layer: EquilibriumLayer,
    sample: Callable[[int], Sequence[Tensor]],
    *,
    batches: Sequence[int] = (1, 32, 128),
    repeats: int = 15,
    checked: int = 2,
) -> Bench:
    """Time a layer at several batch sizes, and an exact solver on the same data.

    Args:
        layer: its dtype and device are what is measured.
        sample: n to one tensor (n, *shape) for each input.
        batches: numbers of samples in one call, each at least 1.
        repeats: timed calls for each, after two untimed ones.
        checked: samples that are compared with the exact solver.

    Raises:
        InputError: an empty list of batches, or a number below 1.
    """
    if not batches or min(*batches, repeats, checked) < 1:
        found = f"batches={tuple(batches)}, repeats={repeats}, checked={checked}"
        raise InputError(message(found, "positive numbers, at least one batch", "leave them out for the defaults"))
    like = next(iter(layer.parameters()), torch.empty(0))
    rows = tuple(_row(layer, [x.to(like) for x in sample(n)], repeats) for n in batches)
    inputs = tuple(x.double() for x in sample(checked))
    report = verify(layer, *inputs, gradients=False)
    error = max((row.distance for row in report.samples), default=float("nan"))
    dtype = str(like.dtype).removeprefix("torch.")
    return Bench(rows, _solver(layer, inputs, checked), error, torch.get_num_threads(), dtype, like.device.type)


def _row(layer: EquilibriumLayer, inputs: list[Tensor], repeats: int) -> BenchRow:
    leaves = [x.clone().requires_grad_() for x in inputs]

    def forward() -> None:
        with torch.no_grad():
            layer(*inputs)

    def both() -> None:
        outputs = layer(*leaves)
        torch.autograd.backward([y.sum() for y in outputs if y.requires_grad])

    with torch.no_grad():
        solution = layer.solve(*inputs)
    shape = solution.stats.steps.shape
    times = _timed(forward, repeats, inputs), _timed(both, repeats, inputs)
    converged = 1.0 - float(solution.status.failed.double().mean()) if shape else float(solution.status.all_converged)
    layer.zero_grad()
    return BenchRow(inputs[0].shape[0], *times, float(solution.stats.steps.double().mean()), converged)


def _timed(run: Callable[[], None], repeats: int, inputs: Sequence[Tensor]) -> tuple[float, float, float]:
    """Median, tenth and ninetieth percentile in milliseconds."""
    times = []
    for k in range(WARM + repeats):
        _wait(inputs)
        begin = time.perf_counter()
        run()
        _wait(inputs)
        if k >= WARM:
            times.append(1e3 * (time.perf_counter() - begin))
    times.sort()
    return (statistics.median(times), times[int(0.1 * (len(times) - 1))], times[int(0.9 * (len(times) - 1))])


def _wait(inputs: Sequence[Tensor]) -> None:
    if inputs and inputs[0].is_cuda:
        torch.cuda.synchronize(inputs[0].device)


def _solver(layer: EquilibriumLayer, inputs: tuple[Tensor, ...], count: int) -> float:
    """Milliseconds of the problem's own `solve` with Clarabel at these samples; NaN where there is no single problem.

    The parameters get their values back.
    """
    declaration = layer.declaration
    if not isinstance(declaration, Declaration) or declaration.ties or len(declaration.problems) != 1:
        return float("nan")
    parameters = (*declaration.inputs, *declaration.weights.values())
    before, times = [p.value for p in parameters], []
    try:
        layer.write_back()
        for i in range(-1, count):  # the first solve compiles the problem
            for parameter, value in zip(declaration.inputs, inputs, strict=True):
                parameter.value = value[max(i, 0)].detach().cpu().numpy()
            begin = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                declaration.problem.solve(solver="CLARABEL")
            if i >= 0:
                times.append(1e3 * (time.perf_counter() - begin))
    finally:
        for parameter, old in zip(parameters, before, strict=True):
            parameter.value = old
    return statistics.median(times)


def _spread(times: tuple[float, float, float]) -> str:
    return f"{times[0]:.3g} ({times[1]:.3g}–{times[2]:.3g})"
