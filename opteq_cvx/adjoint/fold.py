"""vmap for functions whose tensors are (1|B, ...): the mapped axis becomes part of the batch, or a loop."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Outputs = tuple[Tensor, ...]
LARGE = 2**26  # elements: beyond this, repeating tensors for the fold costs more than a loop


def vectorize(
    apply: Callable[[list[Tensor]], Outputs],
    size: int,
    tensors: Sequence[Tensor],
    dims: Sequence[int | None],
    full: int,
) -> tuple[Outputs, tuple[int | None, ...]]:
    """Run `apply` on tensors of which some carry a mapped axis of length `size`, at `dims`.

    The first `full` tensors have the whole batch B as their leading axis, the others 1 or B. Where every mapped tensor
    has B leading entries the axes are merged to one batch size·B, at the price of repeating what is per sample but
    not mapped. Where a shared tensor is mapped and B > 1, merging would copy it B times: then a loop is cheaper.
    """
    fronted = [t if dim is None else t.movedim(dim, 0) for t, dim in zip(tensors, dims, strict=True)]
    mapped = [dim is not None for dim in dims]
    batch = fronted[0].shape[1 if mapped[0] else 0]
    shared = any(m and t.shape[1] != batch for t, m in zip(fronted, mapped, strict=True))
    repeated = sum(t.numel() * size for t, m in zip(fronted, mapped, strict=True) if not m and t.shape[0] == batch > 1)
    if shared or repeated > LARGE:
        slices = [apply([t[i] if m else t for t, m in zip(fronted, mapped, strict=True)]) for i in range(size)]
        return tuple(torch.stack(parts) for parts in zip(*slices, strict=True)), (0,) * len(slices[0])
    merged = [merge(t, m, size, batch, whole=i < full) for i, (t, m) in enumerate(zip(fronted, mapped, strict=True))]
    outputs = apply(merged)
    whole = [t.shape[0] == size * batch for t in outputs]
    split = tuple(t.reshape(size, batch, *t.shape[1:]) if w else t for t, w in zip(outputs, whole, strict=True))
    return split, tuple(0 if w else None for w in whole)


def merge(tensor: Tensor, mapped: bool, size: int, batch: int, *, whole: bool) -> Tensor:
    """(size, B, ...) or (B, ...) → (size·B, ...); a shared tensor stays (1, ...) unless `whole`."""
    if mapped:
        return tensor.flatten(0, 1)
    if tensor.shape[0] == 1 and not whole:
        return tensor
    return tensor.expand(size, *tensor.shape).flatten(0, 1)
