"""Rules that rearrange, repeat and join entries."""

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.ir.param import Apply
from opteq_cvx.maps.base import align
from opteq_cvx.maps.combine import flat, regroup
from opteq_cvx.maps.gather import gather_operator, pick_of
from opteq_cvx.maps.rule import Rule, Rules
from opteq_cvx.maps.shape import reshape_operator


def _same(node: Apply, x: Tensor) -> Tensor:
    return x


def _reshape(node: Apply, x: Tensor) -> Tensor:
    return reshape_operator(tuple(x.shape[1:]), node.shape, node.attrs.get("order", "F")).apply(x)


def _broadcast_to(node: Apply, x: Tensor) -> Tensor:
    return align(x, len(node.shape)).expand(x.shape[0], *node.shape)


def _transpose(node: Apply, x: Tensor) -> Tensor:
    rank = x.ndim - 1
    axes = node.attrs.get("axes")
    axes = tuple(reversed(range(rank))) if axes is None else axes
    return x.permute(0, *(int(a) % rank + 1 for a in axes))


def _gather(node: Apply, x: Tensor) -> Tensor:
    return gather_operator(node.attrs["index"], tuple(x.shape[1:])).apply(x)


def _together(values: tuple[Tensor, ...]) -> list[Tensor]:
    rows = max(value.shape[0] for value in values)
    return [value.expand(rows, *value.shape[1:]) for value in values]


def _concatenate(node: Apply, *values: Tensor) -> Tensor:
    axis = node.attrs.get("axis", 0)
    if axis is None:
        return torch.cat([flat(value) for value in _together(values)], dim=1)
    return torch.cat(_together(values), dim=int(axis) % len(node.shape) + 1)


def _hstack(node: Apply, *values: Tensor) -> Tensor:
    parts = [align(value, 1) for value in _together(values)]
    return torch.cat(parts, dim=1 if len(node.shape) == 1 else 2)


def _vstack(node: Apply, *values: Tensor) -> Tensor:
    return torch.cat([align(value, 2) for value in _together(values)], dim=1)


def _stack(node: Apply, *values: Tensor) -> Tensor:
    axis = int(node.attrs.get("axis", 0)) % len(node.shape)
    return torch.stack(_together(values), dim=axis + 1)


def _diag_vec(node: Apply, x: Tensor) -> Tensor:
    return torch.diag_embed(flat(x), offset=int(node.attrs.get("k", 0)))


def _diag_mat(node: Apply, x: Tensor) -> Tensor:
    return torch.diagonal(x, offset=int(node.attrs.get("k", 0)), dim1=-2, dim2=-1)


def _trace(node: Apply, x: Tensor) -> Tensor:
    return torch.diagonal(x, dim1=-2, dim2=-1).sum(dim=-1)


def _upper_tri(node: Apply, x: Tensor) -> Tensor:
    rows, columns = np.triu_indices(x.shape[-1], k=1)
    return regroup(x[..., torch.from_numpy(rows), torch.from_numpy(columns)], node.shape)


def _vec_to_upper_tri(node: Apply, x: Tensor) -> Tensor:
    n = node.shape[0]
    rows, columns = np.triu_indices(n, k=1 if node.attrs.get("strict", False) else 0)
    index = np.full((n, n), -1, dtype=np.int64)
    index[rows, columns] = np.arange(rows.size)
    vector = x.mT if x.ndim == 3 else x  # CVXPY reads a matrix-shaped vector in Fortran order
    return regroup(pick_of(index.reshape(-1), rows.size)(flat(vector), {}), node.shape)


WRAPS = (
    "wrap",
    "real",
    "conj",
    "nonneg_wrap",
    "nonpos_wrap",
    "psd_wrap",
    "nsd_wrap",
    "symmetric_wrap",
    "hermitian_wrap",
    "skew_symmetric_wrap",
)

_SAME: dict[str, Rule] = dict.fromkeys(WRAPS, _same)

RULES: Rules = {
    **_SAME,
    "reshape": _reshape,
    "vec": _reshape,
    "imag": lambda node, x: torch.zeros_like(x),
    "squeeze": lambda node, x: regroup(x, node.shape),
    "broadcast_to": _broadcast_to,
    "promote": _broadcast_to,
    "transpose": _transpose,
    "gather": _gather,
    "concatenate": _concatenate,
    "hstack": _hstack,
    "vstack": _vstack,
    "stack": _stack,
    "diag_vec": _diag_vec,
    "diag_mat": _diag_mat,
    "trace": _trace,
    "upper_tri": _upper_tri,
    "vec_to_upper_tri": _vec_to_upper_tri,
}
