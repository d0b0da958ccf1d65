"""Rules of reductions and norms of entries: sum, max, norms, sums of largest entries, geometric means."""

import math

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.ir.frozen import size
from opteq_cvx.ir.param import Apply
from opteq_cvx.maps.combine import flat, regroup
from opteq_cvx.maps.rule import Rules, axes_of, reduce_with, reduction


def _sum(x: Tensor) -> Tensor:
    return x.sum(dim=-1)


def _pnorm(node: Apply, x: Tensor) -> Tensor:
    p = float(node.attrs.get("p", 2))
    return reduce_with(lambda v: vector_norm(v, p), node, x)


def vector_norm(x: Tensor, p: float) -> Tensor:
    """‖x‖_p of the last axis as in CVXPY: −∞ where p < 1 meets a negative entry, 0 where p < 0 meets 0."""
    norm: Tensor = torch.linalg.vector_norm(x, ord=p, dim=-1)
    if p < 0:
        norm = torch.where((x == 0).any(dim=-1), 0.0, norm)
    if p < 1:
        norm = torch.where((x < 0).any(dim=-1), -torch.inf, norm)
    return norm


def _norm(node: Apply, x: Tensor) -> Tensor:
    p = node.attrs.get("p", 2)
    p = {"inf": math.inf, "Inf": math.inf, "fro": 2.0}.get(p, p) if isinstance(p, str) else p
    return reduce_with(lambda v: vector_norm(v, float(p)), node, x)


def sum_of_largest(x: Tensor, k: float) -> Tensor:
    """The sum of the k largest entries of the last axis, interpolated linearly for a fractional k."""
    whole, n = min(math.floor(k), x.shape[-1]), x.shape[-1]
    part = k - math.floor(k)
    extra = 1 if part > 0 and whole < n else 0
    largest = torch.topk(x, whole + extra, dim=-1).values
    total = largest[..., :whole].sum(dim=-1)
    return total + part * largest[..., whole] if extra else total


def _sum_largest(node: Apply, x: Tensor) -> Tensor:
    return reduce_with(lambda v: sum_of_largest(v, float(node.attrs["k"])), node, x)


def _sum_smallest(node: Apply, x: Tensor) -> Tensor:
    return reduce_with(lambda v: -sum_of_largest(-v, float(node.attrs["k"])), node, x)


def _quad_over_lin(node: Apply, x: Tensor, y: Tensor) -> Tensor:
    squares = reduce_with(lambda v: v.square().sum(dim=-1), node, x)
    return squares / y.reshape(y.shape[0], *(1,) * len(node.shape))


def _geo_mean(node: Apply, x: Tensor) -> Tensor:
    axes = axes_of(node, x.ndim - 1)
    n = size(tuple(x.shape[a + 1] for a in axes))
    p = node.attrs.get("p")
    weights = np.ones(n) if p is None else np.asarray(p, dtype=np.float64)
    kept = np.flatnonzero(weights > 0)
    w = torch.from_numpy(weights[kept] / weights.sum()).to(dtype=x.dtype, device=x.device)
    places = torch.from_numpy(kept).to(x.device)
    return reduce_with(lambda v: torch.prod(v.index_select(-1, places) ** w, dim=-1), node, x, order="F")


def _harmonic_mean(x: Tensor) -> Tensor:
    return x.shape[-1] / x.reciprocal().sum(dim=-1)


def _cumsum(node: Apply, x: Tensor) -> Tensor:
    axis = node.attrs.get("axis", 0)
    if axis is None:
        return regroup(flat(x).cumsum(dim=1), node.shape)
    return x.cumsum(dim=int(axis) % (x.ndim - 1) + 1)


def _cumprod(node: Apply, x: Tensor) -> Tensor:
    axis = node.attrs.get("axis", 0)
    if axis is None:
        return regroup(flat(x).cumprod(dim=1), node.shape)
    return x.cumprod(dim=int(axis) % (x.ndim - 1) + 1)


def _cummax(node: Apply, x: Tensor) -> Tensor:
    axis = node.attrs.get("axis", 0)
    if axis is None:
        return regroup(flat(x).cummax(dim=1).values, node.shape)
    return x.cummax(dim=int(axis) % (x.ndim - 1) + 1).values


def _dotsort(node: Apply, x: Tensor, w: Tensor) -> Tensor:
    entries, weights = flat(x), flat(w)
    padded = torch.nn.functional.pad(weights, (0, entries.shape[1] - weights.shape[1]))
    return regroup((entries.sort(dim=1).values * padded.sort(dim=1).values).sum(dim=1), node.shape)


def _length(node: Apply, x: Tensor) -> Tensor:
    entries = flat(x)
    places = torch.arange(1, entries.shape[1] + 1, dtype=x.dtype, device=x.device)
    return regroup(torch.where(entries.abs() > 1e-4, places, 0.0).amax(dim=1), node.shape)


RULES: Rules = {
    "sum": reduction(_sum),
    "mean": reduction(lambda v: v.mean(dim=-1)),
    "max": reduction(lambda v: v.amax(dim=-1)),
    "min": reduction(lambda v: v.amin(dim=-1)),
    "ptp": reduction(lambda v: v.amax(dim=-1) - v.amin(dim=-1)),
    "prod": reduction(lambda v: v.prod(dim=-1)),
    "norm1": reduction(lambda v: v.abs().sum(dim=-1)),
    "norm2": reduction(lambda v: vector_norm(v, 2.0)),
    "norm_inf": reduction(lambda v: v.abs().amax(dim=-1)),
    "pnorm": _pnorm,
    "norm": _norm,
    "sum_squares": reduction(lambda v: v.square().sum(dim=-1)),
    "log_sum_exp": reduction(lambda v: torch.logsumexp(v, dim=-1)),
    "harmonic_mean": reduction(_harmonic_mean),
    "inv_prod": reduction(lambda v: v.prod(dim=-1).reciprocal()),
    "sum_largest": _sum_largest,
    "sum_smallest": _sum_smallest,
    "quad_over_lin": _quad_over_lin,
    "geo_mean": _geo_mean,
    "cumsum": _cumsum,
    "cumprod": _cumprod,
    "cummax": _cummax,
    "dotsort": _dotsort,
    "length": _length,
}
