"""Batches whose samples have large matrices of their own are solved so many at a time as the processor's cache holds.

Every step of the map reads all those matrices: from memory once they outgrow the cache, which halves the speed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from opteq_cvx.adjoint.problem import Solve, take
from opteq_cvx.iterate.contract import Iterate
from opteq_cvx.splitting.contract import Certificate, Prepared, Theta

CACHE = (
    12 * 2**20
)  # bytes of matrices in θ; of LASSO 100 × 200 with a dictionary per sample 38 at a time, measured 1.6 × faster


def in_blocks(solve: Solve) -> Solve:
    """The same solve, in blocks of samples on the CPU where the batch is too large for the cache."""

    def solved(z0: Tensor, theta: Theta, prepared: Prepared | None) -> tuple[Iterate, Prepared]:
        size = _block(theta, z0)
        if size >= z0.shape[0]:
            return solve(z0, theta, prepared)
        parts = []
        for rows in torch.arange(z0.shape[0], device=z0.device).split(size):
            parts.append(solve(z0[rows], take(theta, rows), None if prepared is None else _part(prepared, rows)))
        return _joined([p[0] for p in parts]), _together([p[1] for p in parts], [len(p[0].z) for p in parts])

    return solved


def _block(theta: Theta, z0: Tensor) -> int:
    """How many samples to solve at a time: equal blocks, none larger than the cache."""
    batch = z0.shape[0]
    own = sum(t[0].numel() * t.element_size() for t in theta if t.ndim > 2 and t.shape[0] == batch > 1)
    if z0.device.type != "cpu" or own * batch <= CACHE:
        return batch
    count = -(-own * batch // CACHE)
    return max(1, -(-batch // count))


def _part(prepared: Prepared, rows: Tensor) -> Prepared:
    c = prepared.certificate
    flags = (None if f is None else take((f,), rows)[0] for f in (c.modulus, c.convex, c.empty, c.unbounded))
    return Prepared(take(prepared.tensors, rows), Certificate(*flags))


def _joined(parts: Sequence[Iterate]) -> Iterate:
    names = ("z", "residual", "steps", "converged", "finite")
    return Iterate(*(torch.cat([getattr(p, name) for p in parts]) for name in names))


def _together(parts: Sequence[Prepared], rows: Sequence[int]) -> Prepared:
    """What was prepared for all blocks; what they share stays shared."""
    tensors = tuple(_rows(same, rows) for same in zip(*(p.tensors for p in parts), strict=True))
    certificates = [p.certificate for p in parts]
    modulus = [c.modulus for c in certificates]
    known = [m for m in modulus if m is not None]
    return Prepared(
        tensors,
        Certificate(
            modulus=_rows(known, rows) if len(known) == len(parts) else None,
            convex=_flags([c.convex for c in certificates], rows, missing=True),
            empty=_flags([c.empty for c in certificates], rows, missing=False),
            unbounded=_flags([c.unbounded for c in certificates], rows, missing=False),
        ),
    )


def _rows(parts: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
    """(1|n, ...) of each block as (1|B, ...)."""
    first = parts[0]
    if all(p.shape[0] == 1 and torch.equal(p, first) for p in parts):
        return first
    return torch.cat([p.expand(n, *p.shape[1:]) for p, n in zip(parts, rows, strict=True)])


def _flags(parts: Sequence[Tensor | None], rows: Sequence[int], *, missing: bool) -> Tensor | None:
    """The flags of all blocks; None where no block has any."""
    if all(p is None for p in parts):
        return None
    return _rows([torch.full((1,), missing) if p is None else p for p in parts], rows)
