"""Chunks: a large batch solved so many samples at a time, in memory that does not grow with the batch, backward too."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from opteq_cvx.binding import Rows
from opteq_cvx.errors import InputError, message

Run = Callable[[dict[str, Tensor], bool], tuple[Tensor, ...]]
"""run(inputs, again): outputs (n, *shape) of inputs (1|n, *shape); `again` in backward, where nothing is reported."""


def in_chunks(run: Run, rows: Rows, size: int) -> tuple[Tensor, ...]:
    """The outputs (*batch, *shape), `size` samples at a time; half as many from where memory did not suffice.

    Of a chunk only inputs and outputs are kept: backward solves it again (Chen et al., *Training Deep Nets with
    Sublinear Memory Cost*, arXiv 1604.06174), so that a step costs one more forward pass.

    Raises:
        InputError: `size` is not positive.
        torch.OutOfMemoryError: there is no memory for one sample; or in backward, whose chunks are the forward ones.
    """
    if size < 1:
        raise InputError(message(f"chunk={size}", "a positive number of samples", "pass e.g. chunk=1000"))
    pieces: list[tuple[Tensor, ...]] = []
    start = 0
    while start < rows.count:
        part = {name: v if v.shape[0] == 1 else v[start : start + size] for name, v in rows.values.items()}
        try:
            pieces.append(_kept_small(run, part))
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not _out_of_memory(error):
                raise
            size = (size + 1) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        start += size
    joined = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return tuple(v.reshape(*rows.batch, *v.shape[1:]) for v in joined)


def _kept_small(run: Run, part: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """One chunk; what its backward needs is computed again there."""
    if not torch.is_grad_enabled():
        return run(part, False)
    names, calls = tuple(part), list[None]()

    def again(*values: Tensor) -> tuple[Tensor, ...]:
        calls.append(None)
        return run(dict(zip(names, values, strict=True)), len(calls) > 1)

    found: tuple[Tensor, ...] = checkpoint(again, *part.values(), use_reentrant=False, preserve_rng_state=False)
    return found


def _out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: PyTorch has an exception for devices, and only words for the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
